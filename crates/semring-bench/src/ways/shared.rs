//! The textbook example: a slot of shared memory, and two semaphores for every message.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use sysv_ipc::Key;
use sysv_ipc::sem::{Op, SemSet};
use sysv_ipc::shm::{Attachment, Shm};

use super::way::{Category, End, Setup, Spec, Way, one_sender_only};
use crate::cleanup::CleanupGuard;
use crate::error::{Result, wrong_length};
use crate::link::Link;
use crate::payload::Bytes;

pub(super) const WAYS: [Way; 1] = [Way {
    name: "shared-semaphore",
    label: "shm + semaphores",
    about: "One slot of shared memory, two semop(2) for each message on each side.",
    category: Category::Usual,
    obstacle: one_sender_only,
    make,
    open,
}];

// Semaphores: for each direction, "is empty" and "is full".
const THERE: u16 = 0;
const BACK: u16 = 2;

pub(crate) struct SharedLink {
    set: SemSet,
    attachment: Attachment,
    size: usize,
    sends: u16,
    receives: u16,
    _cleanup: Vec<CleanupGuard>,
}

fn make(mut spec: Spec) -> Result<Setup> {
    let bytes = 2 * spec.size;
    let (segment, segment_cleanup) =
        CleanupGuard::segment(|| Ok(Shm::create(Key::PRIVATE, bytes, 0o600)?))?;
    let (set, cleanup) = CleanupGuard::semaphores(|| Ok(SemSet::create(Key::PRIVATE, 4, 0o600)?))?;
    for direction in [THERE, BACK] {
        set.op(&[Op::new(direction, 1)])?;
    }
    spec.ids = vec![segment.id(), set.id()];
    let link = SharedLink {
        set,
        attachment: segment.attach()?,
        size: spec.size,
        sends: THERE,
        receives: BACK,
        _cleanup: vec![segment_cleanup, cleanup],
    };
    Ok(Setup::named(spec, link))
}

fn open(spec: &Spec, _: usize) -> Result<Box<dyn End>> {
    let [segment, set] = spec.ids[..] else {
        return Err("no segment and set were named".into());
    };
    Ok(Box::new(SharedLink {
        set: SemSet::from_id(set),
        attachment: Shm::from_id(segment).attach()?,
        size: spec.size,
        sends: BACK,
        receives: THERE,
        _cleanup: Vec::new(),
    }))
}

impl SharedLink {
    /// The slot of a direction.
    fn slot(&self, direction: u16) -> NonNull<u8> {
        let offset = usize::from(direction / 2) * self.size;
        // SAFETY: the segment has two slots of this size (checked by its creator's size).
        unsafe { self.attachment.as_ptr().byte_add(offset) }
    }

    fn fits(&self, length: usize) -> Result<()> {
        if length == self.size {
            Ok(())
        } else {
            Err(wrong_length(length, self.size))
        }
    }
}

impl<M: Bytes> Link<M> for SharedLink {
    fn send(&mut self, message: &M) -> Result<()> {
        let bytes = message.bytes();
        self.fits(bytes.len())?;
        self.set.op(&[Op::new(self.sends, -1)])?;
        let slot = self.slot(self.sends).as_ptr();
        // SAFETY: the slot is as long as the message, and the semaphore gives this side exclusive access.
        unsafe { slot.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        Ok(self.set.op(&[Op::new(self.sends + 1, 1)])?)
    }

    fn receive(&mut self, message: &mut M) -> Result<()> {
        let bytes = message.bytes_mut();
        self.fits(bytes.len())?;
        self.set.op(&[Op::new(self.receives + 1, -1)])?;
        let slot = self.slot(self.receives).as_ptr();
        // SAFETY: as in `send`.
        unsafe { slot.copy_to_nonoverlapping(bytes.as_mut_ptr(), bytes.len()) };
        Ok(self.set.op(&[Op::new(self.receives, 1)])?)
    }
}
