//! The shared-memory objects, semaphore sets and message queues of the system: a list, the new ones
//! since a moment, and those that belong to this process.
//!
//! It also contains the places of the name and the semaphore set in a ring's superblock: the only
//! parts of semring's format that the tests need to clean up.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::time::{Duration, SystemTime};

use sysv_ipc::msg::Queue;
use sysv_ipc::sem::SemSet;
use sysv_ipc::shm::Shm;
use sysv_ipc::{msg, sem, shm};

use crate::process;

/// Where POSIX shared-memory objects live on Linux.
pub const POSIX_DIRECTORY: &str = "/dev/shm";

// The superblock: the first page of a segment. The numbers are part of the format (docs/layout.md),
// repeated here on purpose: a test kit that took them from the library would follow its mistakes.
const SUPERBLOCK_BYTES: usize = 4096;
const MAGIC: &[u8; 8] = b"SEMRING\0";
/// 16 bytes: the ring's identity.
pub(crate) const AT_UUID: usize = 0x048;
/// u32 LE: the key of the ring's semaphore set.
const AT_SEMAPHORE_KEY: usize = 0x058;
/// u32 LE: its id.
const AT_SEMAPHORE_ID: usize = 0x05c;
/// u32 LE: the length of the name in bytes.
const AT_NAME_BYTES: usize = 0x084;
/// The name, without its backend.
const AT_NAME: usize = 0x088;
const MAX_NAME_BYTES: usize = 200;

/// The prefix of the directories with rings' pipes; the identity follows.
pub(crate) const PIPES: &str = ".semring-";
/// The place in the file `lock` there that names the ring.
const AT_HOME: u64 = 4096;

/// Something in memory that outlives processes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Object {
    /// A file in /dev/shm, or a directory of pipes.
    Posix {
        /// Its name there.
        name: String,
    },
    /// A System V shared memory segment.
    Segment {
        /// Its id.
        id: i32,
        /// Its key, 0 if it is private.
        key: u32,
    },
    /// A System V semaphore set.
    Semaphores {
        /// Its id.
        id: i32,
        /// Its key, 0 if it is private.
        key: u32,
    },
    /// A System V message queue.
    Queue {
        /// Its id.
        id: i32,
        /// Its key, 0 if it is private.
        key: u32,
    },
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Object::Posix { name } => write!(f, "{POSIX_DIRECTORY}/{name}"),
            Object::Segment { id, key } => {
                write!(f, "shared memory segment {id} (key {key:#010x})")
            }
            Object::Semaphores { id, key } => write!(f, "semaphore set {id} (key {key:#010x})"),
            Object::Queue { id, key } => write!(f, "message queue {id} (key {key:#010x})"),
        }
    }
}

impl Object {
    /// Every object of this IPC namespace and in /dev/shm, of all users. Segments that have been
    /// removed and are still attached somewhere are not listed: they end with their last user.
    ///
    /// # Errors
    /// Those of reading /proc/sysvipc and /dev/shm.
    pub fn list() -> io::Result<BTreeSet<Object>> {
        let mut objects = BTreeSet::new();
        for entry in fs::read_dir(POSIX_DIRECTORY)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            objects.insert(Object::Posix { name });
        }
        let segments = shm::list()?;
        let named = segments
            .iter()
            .filter(|entry| !entry.stat.marked_for_removal);
        objects.extend(named.map(|entry| Object::Segment {
            id: entry.id,
            key: entry.stat.key.bits(),
        }));
        objects.extend(sem::list()?.iter().map(|entry| Object::Semaphores {
            id: entry.id,
            key: entry.stat.key.bits(),
        }));
        objects.extend(msg::list()?.iter().map(|entry| Object::Queue {
            id: entry.id,
            key: entry.stat.key.bits(),
        }));
        Ok(objects)
    }

    /// The processes that are known to have made it or worked on it: a segment's creator; the process
    /// of the last operation on each semaphore (a death with undo is such an operation); the last
    /// sender and the last receiver of a queue. None is known for a file, nor for a set that was
    /// never used.
    pub fn known_users(&self) -> Vec<u32> {
        let pids: Vec<i32> = match self {
            Object::Posix { name } => users_of_pipes(name),
            Object::Segment { id, .. } => {
                let stat = Shm::from_id(*id).stat();
                stat.map(|stat| vec![stat.creator_pid]).unwrap_or_default()
            }
            Object::Semaphores { id, .. } => {
                let set = SemSet::from_id(*id);
                let count = set.stat().map(|stat| stat.count).unwrap_or_default();
                // Of a ring's set only the semaphores that its makers and users change: the removal
                // flag and the creation lock. Listing rings reads all the others by an operation,
                // which makes the reader their last user.
                let indices = if count > 5 { 3..5 } else { 0..count };
                indices
                    .filter_map(|index| u16::try_from(index).ok())
                    .filter_map(|index| set.last_pid(index).ok())
                    .collect()
            }
            Object::Queue { id, .. } => {
                let stat = Queue::from_id(*id).stat();
                stat.map(|stat| vec![stat.last_send_pid, stat.last_receive_pid])
                    .unwrap_or_default()
            }
        };
        let positive = pids.into_iter().filter(|pid| *pid > 0);
        positive.map(i32::cast_unsigned).collect()
    }

    /// The time, to the second, of the last action that makes a process one of its [known
    /// users](Object::known_users): it was made, there was an operation on a semaphore, or a pid was
    /// written into the lock file.
    pub(crate) fn last_touched(&self) -> Option<SystemTime> {
        let seconds = match self {
            Object::Posix { name } => {
                let path = format!("{POSIX_DIRECTORY}/{name}");
                let made = fs::symlink_metadata(&path).and_then(|file| file.created());
                let lock = fs::metadata(format!("{path}/lock"));
                let written = lock.and_then(|lock| lock.modified());
                return made.ok().max(written.ok());
            }
            Object::Segment { id, .. } => Shm::from_id(*id).stat().ok()?.ctime,
            Object::Semaphores { id, .. } => {
                let stat = SemSet::from_id(*id).stat().ok()?;
                stat.ctime.max(stat.otime)
            }
            Object::Queue { id, .. } => Queue::from_id(*id).stat().ok()?.ctime,
        };
        let seconds = u64::try_from(seconds).ok()?;
        Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
    }

    /// A semaphore set on which no operation was ever done: the state that a creator leaves when it
    /// is killed right after `semget`. The kernel does not record its creator's pid.
    pub fn is_unused_set(&self) -> bool {
        match self {
            Object::Semaphores { id, .. } => SemSet::from_id(*id)
                .stat()
                .is_ok_and(|stat| stat.otime == 0 && self.known_users().is_empty()),
            _ => false,
        }
    }

    /// Removes it. It is no error if it is gone already.
    ///
    /// # Errors
    /// The system's error.
    pub fn remove(&self) -> io::Result<()> {
        let removed: io::Result<()> = match self {
            Object::Posix { name } => {
                let path = format!("{POSIX_DIRECTORY}/{name}");
                let removed = match fs::remove_file(&path) {
                    Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
                        fs::remove_dir_all(&path)
                    }
                    other => other,
                };
                match removed {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                    other => other,
                }
            }
            Object::Segment { id, .. } => unless_gone(Shm::from_id(*id).remove()),
            Object::Semaphores { id, .. } => unless_gone(SemSet::from_id(*id).remove()),
            Object::Queue { id, .. } => unless_gone(Queue::from_id(*id).remove()),
        };
        removed
    }
}

fn unless_gone(result: sysv_ipc::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.is_removed() => Ok(()),
        other => Ok(other?),
    }
}

/// The objects at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    objects: BTreeSet<Object>,
}

impl Snapshot {
    /// Notes every object that exists.
    ///
    /// # Panics
    /// If /proc/sysvipc or /dev/shm can't be read.
    pub fn take() -> Snapshot {
        Snapshot { objects: all() }
    }

    /// The objects noted.
    pub(crate) fn objects(&self) -> &BTreeSet<Object> {
        &self.objects
    }

    /// Every object made since, by any process.
    pub fn created_since(&self) -> Vec<Object> {
        all().difference(&self.objects).cloned().collect()
    }

    /// The objects made since that belong to this process: made or used by it or by a process that
    /// it started through this crate, or files that bear a [name](crate::names) of it.
    ///
    /// Tests that run concurrently in one process still own the objects in use: this is the check
    /// for a process that runs one test, or for the end of all. A single test uses its
    /// [`RingGuard`](crate::names::RingGuard).
    pub fn leftovers(&self) -> Vec<Object> {
        let ours = process::ours();
        let prefix = crate::names::prefix();
        let mut found = self.created_since();
        found.retain(|object| match object {
            Object::Posix { name } if name.contains(&prefix) => true,
            Object::Posix { name } if pipes_of(name).contains(&prefix) => true,
            other => other.known_users().iter().any(|pid| ours.contains(pid)),
        });
        found
    }

    /// Panics with a list if there are [leftovers](Snapshot::leftovers).
    #[track_caller]
    pub fn assert_no_leftovers(&self) {
        let left = self.leftovers();
        assert!(left.is_empty(), "left behind: {}", listed(&left));
    }
}

fn all() -> BTreeSet<Object> {
    Object::list().expect("/proc/sysvipc and /dev/shm can be read")
}

/// Objects in a sentence.
pub(crate) fn listed(objects: &[Object]) -> String {
    let texts: Vec<String> = objects.iter().map(Object::to_string).collect();
    texts.join(", ")
}

/// The parts of a ring's first page that are needed here.
struct Ring {
    name: Vec<u8>,
    set: Object,
    /// The beginning of the name of the directory of its pipes, if it has pipes.
    pipes: String,
}

impl Ring {
    fn decode(page: &[u8]) -> Option<Ring> {
        let word = |at: usize| {
            let bytes = page.get(at..at + 4)?;
            Some(u32::from_le_bytes(bytes.try_into().expect("4 bytes")))
        };
        if !page.starts_with(MAGIC) {
            return None;
        }
        let name_bytes = word(AT_NAME_BYTES)? as usize;
        if name_bytes > MAX_NAME_BYTES {
            return None;
        }
        Some(Ring {
            name: page.get(AT_NAME..AT_NAME + name_bytes)?.to_owned(),
            set: Object::Semaphores {
                id: word(AT_SEMAPHORE_ID)?.cast_signed(),
                key: word(AT_SEMAPHORE_KEY)?,
            },
            pipes: page
                .get(AT_UUID..AT_UUID + 16)?
                .iter()
                .fold(PIPES.to_owned(), |name, byte| format!("{name}{byte:02x}")),
        })
    }
}

/// The name of the ring in a directory of pipes; empty for other names.
fn pipes_of(name: &str) -> String {
    let mut home = String::new();
    if name.starts_with(PIPES)
        && let Ok(mut lock) = File::open(format!("{POSIX_DIRECTORY}/{name}/lock"))
        && lock.seek(io::SeekFrom::Start(AT_HOME)).is_ok()
    {
        let _ = lock.read_to_string(&mut home);
    }
    home
}

/// The processes named in a directory of pipes: its maker, and the last holders of roles.
fn users_of_pipes(name: &str) -> Vec<i32> {
    let maker = pipes_of(name)
        .lines()
        .nth(2)
        .and_then(|line| line.parse().ok());
    let mut users: Vec<i32> = maker.into_iter().collect();
    if name.starts_with(PIPES)
        && let Ok(lock) = File::open(format!("{POSIX_DIRECTORY}/{name}/lock"))
    {
        let mut page = [0; 4096];
        let got = std::os::unix::fs::FileExt::read_at(&lock, &mut page, 0).unwrap_or(0);
        let words = page[..got].chunks_exact(8).skip(1);
        users.extend(words.map(|word| i32::from_le_bytes([word[0], word[1], word[2], word[3]])));
    }
    users
}

/// Everything among `existing` that belongs to the ring of this name.
pub(crate) fn of_ring(name: &str, existing: &BTreeSet<Object>) -> BTreeSet<Object> {
    let mut found = BTreeSet::new();
    let mut rings = Vec::new();
    for object in existing {
        match object {
            Object::Posix { name: file } if pipes_of(file).contains(name) => {
                found.insert(object.clone());
            }
            // Names are unique, so a file whose name contains one (a lock file, for example) belongs
            // to that ring.
            Object::Posix { name: file } if file.contains(name) => {
                found.insert(object.clone());
                let page = first_page(&format!("{POSIX_DIRECTORY}/{file}"));
                rings.extend(page.ok().and_then(|page| Ring::decode(&page)));
            }
            Object::Segment { id, .. } => {
                let ring = sysv_page(*id).and_then(|page| Ring::decode(&page));
                if let Some(ring) = ring.filter(|ring| ring.name == name.as_bytes()) {
                    found.insert(object.clone());
                    rings.push(ring);
                }
            }
            _ => {}
        }
    }
    // Only a set that has the key *and* the id is the ring's: either alone may belong to another one
    // by now.
    for ring in rings {
        found.extend(Some(ring.set).filter(|set| existing.contains(set)));
        let pipes = |object: &&Object| match object {
            Object::Posix { name } => name.starts_with(&ring.pipes),
            _ => false,
        };
        found.extend(existing.iter().filter(pipes).cloned());
    }
    found
}

fn first_page(path: &str) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    File::open(path)?
        .take(SUPERBLOCK_BYTES as u64)
        .read_to_end(&mut page)?;
    Ok(page)
}

/// The first page of a segment of this user; segments of other users are not read.
fn sysv_page(id: i32) -> Option<Vec<u8>> {
    let segment = Shm::from_id(id);
    let stat = segment.stat().ok()?;
    let me = nix::unistd::geteuid().as_raw();
    let ours = stat.uid == me || stat.cuid == me;
    if !ours || stat.bytes < SUPERBLOCK_BYTES || stat.marked_for_removal {
        return None;
    }
    let attachment = segment.attach_read_only().ok()?;
    Some(copy_page(&attachment))
}

/// Copies the first page out of an attachment that has one.
#[allow(unsafe_code)]
fn copy_page(attachment: &shm::Attachment) -> Vec<u8> {
    assert!(attachment.len() >= SUPERBLOCK_BYTES);
    let from = attachment.as_ptr().cast::<u64>();
    let words = (0..SUPERBLOCK_BYTES / 8).map(|index| {
        // SAFETY: the attachment is at least a page long, so the word lies within it.
        let word = unsafe { from.add(index) };
        // SAFETY: the word is mapped and aligned; others may write it, so it is read as volatile and
        // any value will do.
        unsafe { word.read_volatile() }
    });
    words.flat_map(u64::to_ne_bytes).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::names;
    use sysv_ipc::{Created, Key};

    /// The first page of a ring of this name and set, as semring writes it.
    pub(crate) fn superblock(name: &str, set: &SemSet) -> Vec<u8> {
        let mut page = vec![0; SUPERBLOCK_BYTES];
        page[..8].copy_from_slice(MAGIC);
        let key = set.stat().unwrap().key.bits();
        page[AT_SEMAPHORE_KEY..][..4].copy_from_slice(&key.to_le_bytes());
        page[AT_SEMAPHORE_ID..][..4].copy_from_slice(&set.id().to_le_bytes());
        page[AT_NAME_BYTES..][..4].copy_from_slice(&(name.len() as u32).to_le_bytes());
        page[AT_NAME..][..name.len()].copy_from_slice(name.as_bytes());
        page
    }

    /// A key that no other test takes.
    pub(crate) fn free_key() -> Key {
        loop {
            let key = Key::from_raw(names::random() as u32 | 1);
            if SemSet::open(key).is_err() && Shm::open(key).is_err() {
                return key;
            }
        }
    }

    #[test]
    fn a_new_object_of_each_kind_is_seen_and_is_ours() {
        let before = Snapshot::take();
        let name = names::unique("objects");
        let path = format!("{POSIX_DIRECTORY}/{name}");
        fs::write(&path, "x").unwrap();
        let segment = Created::new(Shm::create(Key::PRIVATE, 10, 0o600).unwrap());
        let set = Created::new(SemSet::create(Key::PRIVATE, 2, 0o600).unwrap());
        let queue = Created::new(Queue::create(Key::PRIVATE, 0o600).unwrap());
        let file = Object::Posix { name };
        let [segment_object, set_object, queue_object] = [
            Object::Segment {
                id: segment.id(),
                key: 0,
            },
            Object::Semaphores {
                id: set.id(),
                key: 0,
            },
            Object::Queue {
                id: queue.id(),
                key: 0,
            },
        ];
        let new = before.created_since();
        for object in [&file, &segment_object, &set_object, &queue_object] {
            assert!(new.contains(object), "{object}");
        }
        assert!(set_object.is_unused_set());
        assert!(!segment_object.is_unused_set());
        assert!(
            !before.leftovers().contains(&set_object),
            "it was never used"
        );
        set.op(&[sem::Op::new(1, 1)]).unwrap();
        assert!(!set_object.is_unused_set());
        queue.send(1, b"x").unwrap();
        let ours = before.leftovers();
        for object in [&file, &segment_object, &set_object, &queue_object] {
            assert!(ours.contains(object), "{object}");
        }
        for object in [&file, &segment_object, &set_object, &queue_object] {
            object.remove().unwrap();
            object
                .remove()
                .unwrap_or_else(|error| panic!("{object} is gone: {error}"));
        }
        let new = before.created_since();
        for object in [&file, &segment_object, &set_object, &queue_object] {
            assert!(!new.contains(object), "{object}");
        }
    }

    #[test]
    fn an_object_from_before_is_not_a_leftover() {
        let name = names::unique("old");
        let path = format!("{POSIX_DIRECTORY}/{name}");
        fs::write(&path, "x").unwrap();
        let after = Snapshot::take();
        assert!(!after.leftovers().contains(&Object::Posix { name }));
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn any_bytes_are_a_superblock_or_not() {
        for len in [0, 7, 8, 100, 4095] {
            assert!(Ring::decode(&vec![0xff; len]).is_none());
        }
        let mut page = vec![0xff; SUPERBLOCK_BYTES];
        page[..8].copy_from_slice(MAGIC);
        assert!(Ring::decode(&page).is_none(), "a name of 4 GiB");
        page[AT_NAME_BYTES..][..4].copy_from_slice(&200u32.to_le_bytes());
        assert_eq!(Ring::decode(&page).unwrap().name, [0xff; 200]);
        assert!(Ring::decode(&page[..AT_NAME + 199]).is_none(), "cut");
    }

    #[test]
    fn set_with_another_id_is_left_alone() {
        let name = names::unique("stale");
        let set = Created::new(SemSet::create(free_key(), 1, 0o600).unwrap());
        let mut page = superblock(&name, &set);
        let path = format!("{POSIX_DIRECTORY}/{name}");
        page[AT_SEMAPHORE_ID] ^= 1;
        fs::write(&path, &page).unwrap();
        let found = of_ring(&name, &all());
        fs::remove_file(&path).unwrap();
        assert_eq!(found, [Object::Posix { name }].into());
    }
}
