//! The advice given to the kernel about a segment's pages, and the behaviour where it refuses the
//! advice.

use std::ptr::NonNull;

use super::contract_tests::{Fixture, LEN, nameless, over_each, request, smaps};
use super::*;
use crate::os::errno;
use crate::os::testing::{self, Ended, in_child};

/// Whether the kernel has noted a flag (two letters) for the mapping at an address.
fn has_flag(base: NonNull<u8>, flag: &str) -> bool {
    let flags = smaps(base, "VmFlags");
    flags.split(' ').any(|other| other == flag)
}

/// Forks. Dropping the child's copy of the handle must not unmap a mapping that the child made at the
/// segment's address. Ends with 0 if the child detects that it is one, and the pages are not mapped.
fn fork_with(segment: Segment) -> Ended {
    let base = segment.base();
    in_child(move || {
        testing::map_page_at(base);
        // SAFETY: the page was just mapped here.
        unsafe { base.as_ptr().write_volatile(7) };
        let forked = segment.is_forked();
        drop(segment);
        // SAFETY: still mapped, or the child ends with SIGSEGV: that is the question.
        let byte = unsafe { base.as_ptr().read_volatile() };
        u8::from(!forked || byte != 7)
    })
}

#[test]
fn a_child_does_not_have_the_pages() {
    over_each("fork", |fixture| {
        let (_object, segment) = fixture.create();
        assert!(has_flag(segment.base(), "dc"));
        assert_eq!(fork_with(segment), Ended::Code(0));
    });
}

#[test]
fn a_child_does_not_have_the_pages_where_advice_is_refused() {
    over_each("refused", |fixture| {
        let ended = in_child(|| {
            testing::answer_advice_with(errno::EINVAL);
            let (_object, segment) = fixture.create();
            assert!(!has_flag(segment.base(), "dc"), "it was not refused");
            u8::from(fork_with(segment) != Ended::Code(0))
        });
        assert_eq!(ended, Ended::Code(0));
    });
}

#[test]
fn child_of_anonymous_memory_without_advice() {
    let ended = in_child(|| {
        testing::answer_advice_with(errno::EINVAL);
        let (_, segment) = NewObject::create(&Place::Anonymous, &request(LEN)).unwrap();
        let ended = in_child(|| {
            let mine = segment.adopt().unwrap().expect("the pages are there");
            u8::from(!segment.is_forked() || mine.is_forked())
        });
        u8::from(ended != Ended::Code(0))
    });
    assert_eq!(ended, Ended::Code(0));
}

/// As in emulators that take every advice and follow none.
#[test]
fn a_child_is_known_where_advice_has_no_effect() {
    let ended = in_child(|| {
        testing::answer_advice_with(0);
        let (_object, segment) = Fixture::posix("ignored").create();
        let ended = in_child(|| u8::from(!segment.is_forked()));
        u8::from(ended != Ended::Code(0) || segment.is_forked())
    });
    assert_eq!(ended, Ended::Code(0));
}

/// A child unmaps the ring, not another mapping that was at its address at the time of the fork.
#[test]
fn pages_unmapped_before_a_fork_stay_untouched() {
    let ended = in_child(|| {
        testing::answer_advice_with(errno::EINVAL);
        let (_object, segment) = Fixture::posix("unmapped").create();
        let base = segment.base();
        drop(segment);
        testing::map_page_at(base);
        let ended = in_child(|| {
            // SAFETY: mapped before the fork, or the child ends with SIGSEGV: that is the question.
            unsafe { base.as_ptr().read_volatile() }
        });
        u8::from(ended != Ended::Code(0))
    });
    assert_eq!(ended, Ended::Code(0));
}

#[test]
fn a_core_dump_does_not_have_the_pages() {
    over_each("dump", |fixture| {
        let (object, segment) = fixture.create();
        assert!(has_flag(segment.base(), "dd"));
        let looking = object.map(LEN, Access::ReadOnly).unwrap();
        assert!(has_flag(looking.base(), "dd"));
    });
    for place in nameless() {
        let (_, segment) = NewObject::create(&place, &request(LEN)).unwrap();
        assert!(has_flag(segment.base(), "dd"), "{place:?}");
    }
    assert!(has_flag(Segment::private(LEN).unwrap().base(), "dd"));
}
