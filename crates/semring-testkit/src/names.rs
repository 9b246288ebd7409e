//! A name of its own for each test, and a cleanup guard that removes everything of that name.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use crate::objects::{self, Object, Snapshot};
use crate::process;

/// The longest label, in bytes, so that the name stays within a ring's 200.
pub const MAX_LABEL_BYTES: usize = 100;

/// A ring name that no other test uses: `st-PID-COUNT-RANDOM-label`. The random part is there
/// because a process may get the number of one that died and left something behind.
///
/// # Panics
/// If the label is longer than [`MAX_LABEL_BYTES`] or has other characters than `A-Za-z0-9._-`.
///
/// ```
/// use semring_testkit::names::unique;
///
/// let name = unique("hello");
/// assert!(name.starts_with("st-") && name.ends_with("-hello"));
/// assert_ne!(name, unique("hello"));
/// ```
pub fn unique(label: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    assert!(
        label.len() <= MAX_LABEL_BYTES
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)),
        "a label has at most {MAX_LABEL_BYTES} of the characters of a ring name: {label:?}"
    );
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let random = random() as u32;
    format!("{}{count}-{random:08x}-{label}", prefix())
}

/// The prefix of the names of this process.
pub(crate) fn prefix() -> String {
    format!("st-{}-", std::process::id())
}

/// An unpredictable number: the standard library seeds its hashers from the system.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// The address of the ring of this name in POSIX shared memory.
pub fn posix(name: &str) -> String {
    format!("posix:{name}")
}

/// The address of the ring of this name in System V shared memory.
pub fn sysv(name: &str) -> String {
    format!("sysv:{name}")
}

/// A name, and a cleanup guard: when it is dropped, also by a panic, the POSIX object, the System V
/// segment and the semaphore set of the ring are removed.
///
/// Objects of the ring are found by its name: the file in /dev/shm (and others whose names contain
/// the ring's), the segments whose superblock has the name, and the semaphore set named by the
/// superblock. Only objects made since the guard are considered. Reading a System V segment
/// attaches it for a moment, also a segment of another test: if that is removed in just that
/// moment, the kernel still lists it as marked for removal, and a count of attachments may be one
/// too high.
///
/// A set whose segment is gone can't be found that way, so the guard stores the objects that it has
/// seen on each look ([`objects`](RingGuard::objects)), and removes objects made by
/// [adopted](RingGuard::adopt) processes.
#[derive(Debug)]
pub struct RingGuard {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    before: Snapshot,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    seen: BTreeSet<Object>,
    adopted: Vec<Adopted>,
}

/// A process that a guard takes charge of.
#[derive(Debug)]
struct Adopted {
    pid: u32,
    /// Known for processes that were started through this crate.
    started: Option<process::Entry>,
}

impl Adopted {
    /// Whether it is probably among the users of the object, and not a process that got the same pid later.
    fn has_used(&self, object: &Object) -> bool {
        let end = self.started.and_then(process::Entry::end);
        let since = end.zip(object.last_touched());
        object.known_users().contains(&self.pid)
            && since.is_none_or(|(end, touched)| touched <= end)
    }
}

/// The guards that live, for the watchdog, whose abort runs no destructors.
static GUARDS: Mutex<Vec<Weak<Inner>>> = Mutex::new(Vec::new());

impl RingGuard {
    /// A guard for a new [unique] name.
    ///
    /// # Panics
    /// As [`unique`], and if /proc/sysvipc or /dev/shm can't be read.
    pub fn new(label: &str) -> RingGuard {
        let inner = Arc::new(Inner {
            name: unique(label),
            before: Snapshot::take(),
            state: Mutex::default(),
        });
        let mut guards = lock(&GUARDS);
        guards.retain(|guard| guard.strong_count() > 0);
        guards.push(Arc::downgrade(&inner));
        RingGuard { inner }
    }

    /// The name, which also is the address in the default backend.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// `posix:NAME`.
    pub fn posix(&self) -> String {
        posix(self.name())
    }

    /// `sysv:NAME`.
    pub fn sysv(&self) -> String {
        sysv(self.name())
    }

    /// Also removes objects that this process makes and that bear no name: those that are left when
    /// it is killed in the middle of a creation or removal. These are all segments that it created
    /// and all semaphore sets that it used last, if they were made since the guard; so a process that
    /// works on the rings of two guards must be adopted by neither.
    pub fn adopt(&self, pid: u32) {
        let started = process::Entry::of(pid);
        lock(&self.inner.state)
            .adopted
            .push(Adopted { pid, started });
    }

    /// Adopted processes are no longer considered. The kernel reuses the pid of a dead process when it
    /// has gone through all of them (often 32 768), so a test that adopts many processes that were not
    /// started through this crate must forget those whose objects it has removed: for the others the
    /// time of their end is known.
    pub fn forget_adopted(&self) {
        lock(&self.inner.state).adopted.clear();
    }

    /// Looks what there is of the ring just now, and remembers it.
    pub fn objects(&self) -> Vec<Object> {
        self.inner.objects()
    }

    /// Removes all objects, and returns them. Objects that can't be removed are reported on stderr
    /// instead.
    pub fn clean(&self) -> Vec<Object> {
        self.inner.clean()
    }

    /// Panics if anything of the ring is there.
    #[track_caller]
    pub fn assert_clean(&self) {
        let left = self.objects();
        assert!(
            left.is_empty(),
            "left behind of {}: {}",
            self.name(),
            objects::listed(&left)
        );
    }
}

impl Drop for RingGuard {
    fn drop(&mut self) {
        self.clean();
    }
}

impl Inner {
    fn objects(&self) -> Vec<Object> {
        let Ok(existing) = Object::list() else {
            return Vec::new();
        };
        let mut state = lock(&self.state);
        // To look into a segment is to attach it: leave those alone that were there before.
        let mut candidates = existing.clone();
        candidates.retain(|object| !self.before.objects().contains(object));
        let mut found = objects::of_ring(&self.name, &candidates);
        found.extend(state.seen.intersection(&existing).cloned());
        if !state.adopted.is_empty() {
            let nameless = candidates
                .iter()
                .filter(|object| state.adopted.iter().any(|process| process.has_used(object)));
            found.extend(nameless.cloned());
        }
        state.seen.extend(found.iter().cloned());
        found.into_iter().collect()
    }

    fn clean(&self) -> Vec<Object> {
        let mut removed = self.objects();
        removed.retain(|object| match object.remove() {
            Ok(()) => true,
            Err(error) => {
                eprintln!("{}: can't remove {object}: {error}", self.name);
                false
            }
        });
        removed
    }
}

/// Removes what belongs to every living guard: for the watchdog, before it aborts.
pub(crate) fn clean_all() {
    // A thread that hangs while it holds one of the locks must not hang the watchdog, too.
    let Ok(guards) = GUARDS.try_lock() else {
        return;
    };
    for guard in guards.iter().filter_map(Weak::upgrade) {
        if guard.state.try_lock().is_ok() {
            guard.clean();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere must not keep a guard from cleaning up.
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::POSIX_DIRECTORY;
    use crate::objects::tests::{free_key, superblock};
    use std::collections::HashSet;
    use std::path::Path;
    use sysv_ipc::sem::{self, SemSet};
    use sysv_ipc::shm::Shm;

    #[test]
    fn names_are_unique_and_valid() {
        let names: HashSet<String> = (0..1000).map(|_| unique("x")).collect();
        assert_eq!(names.len(), 1000);
        let longest = unique(&"y".repeat(MAX_LABEL_BYTES));
        assert!(longest.len() <= 200);
        let random: HashSet<u64> = (0..1000).map(|_| random()).collect();
        assert_eq!(random.len(), 1000);
    }

    #[test]
    #[should_panic(expected = "characters of a ring name")]
    fn a_label_with_a_slash_is_refused() {
        unique("a/b");
    }

    fn posix_ring(guard: &RingGuard) -> SemSet {
        let set = SemSet::create(free_key(), 1, 0o600).unwrap();
        let page = superblock(guard.name(), &set);
        std::fs::write(Path::new(POSIX_DIRECTORY).join(guard.name()), page).unwrap();
        set
    }

    #[allow(unsafe_code)]
    fn sysv_ring(name: &str) -> (Shm, SemSet) {
        let key = free_key();
        let set = SemSet::create(key, 1, 0o600).unwrap();
        let segment = Shm::create(key, 8192, 0o600).unwrap();
        let page = superblock(name, &set);
        let attachment = segment.attach().unwrap();
        let to = attachment.as_ptr().as_ptr();
        // SAFETY: the segment is 8192 bytes long, the page 4096, and no other code uses it.
        unsafe { std::ptr::copy_nonoverlapping(page.as_ptr(), to, page.len()) };
        (segment, set)
    }

    /// Another test's guard may look into the segment just now.
    fn is_gone(segment: Shm) -> bool {
        match segment.stat() {
            Ok(stat) => stat.marked_for_removal,
            Err(error) => error.is_removed(),
        }
    }

    #[test]
    fn dropping_the_guard_removes_the_posix_object_and_its_set() {
        let guard = RingGuard::new("posix");
        let set = posix_ring(&guard);
        let path = Path::new(POSIX_DIRECTORY).join(guard.name());
        std::fs::write(format!("{}.lock", path.display()), "").unwrap();
        assert_eq!(guard.objects().len(), 3);
        drop(guard);
        assert!(!path.exists() && set.stat().unwrap_err().is_removed());
        assert!(!Path::new(&format!("{}.lock", path.display())).exists());
    }

    #[test]
    fn a_panic_cleans_up_too() {
        let guard = RingGuard::new("panic");
        let set = posix_ring(&guard);
        let path = Path::new(POSIX_DIRECTORY).join(guard.name());
        let panicked = std::thread::spawn(move || {
            let _guard = guard;
            panic!("this panic belongs to the test");
        });
        assert!(panicked.join().is_err());
        assert!(!path.exists() && set.stat().unwrap_err().is_removed());
    }

    #[test]
    fn a_system_v_ring_is_found_by_the_name_in_its_superblock() {
        let guard = RingGuard::new("sysv");
        let other = RingGuard::new("sysv");
        let (segment, set) = sysv_ring(guard.name());
        let (other_segment, other_set) = sysv_ring(other.name());
        let removed = guard.clean();
        assert_eq!(removed.len(), 2, "{removed:?}");
        assert!(is_gone(segment) && set.stat().unwrap_err().is_removed());
        assert!(!is_gone(other_segment));
        other_set.stat().unwrap();
        guard.assert_clean();
        drop(other);
        assert!(is_gone(other_segment) && other_set.stat().unwrap_err().is_removed());
    }

    #[test]
    fn set_without_its_segment_is_reported() {
        let guard = RingGuard::new("remembered");
        let set = posix_ring(&guard);
        let path = Path::new(POSIX_DIRECTORY).join(guard.name());
        assert_eq!(guard.objects().len(), 2);
        std::fs::remove_file(path).unwrap();
        let left = guard.objects();
        assert_eq!(left.len(), 1);
        let panicked =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| guard.assert_clean()));
        let text = *panicked.unwrap_err().downcast::<String>().unwrap();
        assert!(
            text.contains(&format!("semaphore set {}", set.id())),
            "{text}"
        );
        drop(guard);
        assert!(set.stat().unwrap_err().is_removed());
    }

    #[test]
    fn what_an_adopted_process_left_is_removed() {
        let guard = RingGuard::new("adopted");
        // Without a segment that names it, only the pid of its last user shows the owner.
        let set = SemSet::create(free_key(), 1, 0o600).unwrap();
        let segment = Shm::create(free_key(), 1, 0o600).unwrap();
        set.op(&[sem::Op::new(0, 1)]).unwrap();
        // Above the highest number that a process can have.
        guard.adopt(1 << 23);
        assert_eq!(guard.objects(), []);
        // This process is the user here. (Other tests of it run beside this one, so nothing may be
        // removed before it is known to be the two.)
        lock(&guard.inner.state).adopted = vec![Adopted {
            pid: std::process::id(),
            started: None,
        }];
        let found = guard.objects();
        let key = set.stat().unwrap().key.bits();
        assert!(found.contains(&Object::Semaphores { id: set.id(), key }));
        let key = segment.stat().unwrap().key.bits();
        assert!(found.contains(&Object::Segment {
            id: segment.id(),
            key
        }));
        let mut state = lock(&guard.inner.state);
        state.adopted.clear();
        state.seen.retain(|object| match object {
            Object::Semaphores { id, .. } => *id == set.id(),
            Object::Segment { id, .. } => *id == segment.id(),
            _ => false,
        });
        drop(state);
        drop(guard);
        assert!(is_gone(segment) && set.stat().unwrap_err().is_removed());
    }

    #[test]
    fn reused_pid_of_an_adopted_process_is_its_own() {
        let me = std::process::id();
        // As if this were the second process of its number.
        process::record_started(me);
        let guard = RingGuard::new("number");
        guard.adopt(me);
        let set = SemSet::create(free_key(), 1, 0o600).unwrap();
        set.op(&[sem::Op::new(0, 1)]).unwrap();
        let key = set.stat().unwrap().key.bits();
        let object = Object::Semaphores { id: set.id(), key };
        let adopted = || {
            let state = lock(&guard.inner.state);
            state.adopted[0].has_used(&object)
        };
        assert!(adopted());
        process::record_reaped(me);
        assert!(adopted(), "it may have been before its end");
        // The kernel notes seconds.
        while object.last_touched() <= state_end(&guard) {
            set.op(&[sem::Op::new(0, 1), sem::Op::new(0, -1)]).unwrap();
            std::thread::yield_now();
        }
        assert!(!adopted());
        lock(&guard.inner.state).adopted.clear();
        set.remove().unwrap();
    }

    fn state_end(guard: &RingGuard) -> Option<std::time::SystemTime> {
        lock(&guard.inner.state).adopted[0]
            .started
            .and_then(process::Entry::end)
    }
}
