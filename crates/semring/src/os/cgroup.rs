//! Memory control groups (versions 1 and 2): how much memory the groups of this process have left. Beyond
//! that the kernel does not refuse memory; it kills a process of the group.
//!
//! Left out: `memory.high`, beyond which a group is slowed down.

use std::path::{Path, PathBuf};

/// The group with the least memory left.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Room {
    /// Bytes: the limit, less what is used and could not be given back, with the swap that the group may use.
    pub(crate) free: u64,
    /// The group's limit in bytes.
    pub(crate) limit: u64,
    /// The file that holds the limit.
    pub(crate) file: PathBuf,
}

/// The room of this process; `None` without a limit, and where /proc or the group's files can't be read.
pub(crate) fn room() -> Option<Room> {
    room_in(Path::new("/"), super::process::free_swap())
}

/// The same in a tree of files that begins at `root`.
fn room_in(root: &Path, free_swap: u64) -> Option<Room> {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_default();
    let (groups, mounts) = (read("proc/self/cgroup"), read("proc/self/mountinfo"));
    let versions = [Version::One, Version::Two];
    let rooms = versions.into_iter().filter_map(|version| {
        let group = version.group(&groups)?;
        let (top, directory) = version.directory(&mounts, group)?;
        least_of(version, root, &top, &directory, free_swap)
    });
    rooms.min_by_key(|room| room.free)
}

/// From a group's directory up to the mount point: each group counts what those below it have.
fn least_of(
    version: Version,
    root: &Path,
    top: &Path,
    directory: &Path,
    free_swap: u64,
) -> Option<Room> {
    let groups = directory.ancestors().take_while(|at| at.starts_with(top));
    groups
        .filter_map(|group| {
            let here = root.join(group.strip_prefix("/").unwrap_or(group));
            let mut room = version.room(&here, free_swap)?;
            room.file = group.join(version.limit_file());
            Some(room)
        })
        .min_by_key(|room| room.free)
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Version {
    One,
    Two,
}

impl Version {
    /// The path of the process's group, out of `/proc/self/cgroup`: lines of `ID:CONTROLLERS:PATH`.
    fn group(self, groups: &str) -> Option<&str> {
        groups.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (id, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            let fits = match self {
                Self::One => controllers.split(',').any(|name| name == "memory"),
                Self::Two => id == "0" && controllers.is_empty(),
            };
            fits.then_some(path)
        })
    }

    /// The mount point of the hierarchy, and the group's directory in it, out of `/proc/self/mountinfo`.
    fn directory(self, mounts: &str, group: &str) -> Option<(PathBuf, PathBuf)> {
        mounts.lines().find_map(|line| {
            let (mount, kind) = line.split_once(" - ")?;
            let mut kind = kind.split(' ');
            let (name, _, options) = (kind.next()?, kind.next()?, kind.next()?);
            let fits = match self {
                Self::One => name == "cgroup" && options.split(',').any(|word| word == "memory"),
                Self::Two => name == "cgroup2",
            };
            if !fits {
                return None;
            }
            let mut fields = mount.split(' ').skip(3);
            let (mounted, point) = (unescaped(fields.next()?), unescaped(fields.next()?));
            let point = PathBuf::from(point);
            // A group above the part that is mounted (`/../other`), or beside it, shows as that part at most.
            let below = Path::new(group).strip_prefix(&mounted).ok();
            let below = below.filter(|path| !path.starts_with(".."));
            let directory = below.map_or_else(|| point.clone(), |path| point.join(path));
            Some((point, directory))
        })
    }

    const fn limit_file(self) -> &'static str {
        match self {
            Self::One => "memory.limit_in_bytes",
            Self::Two => "memory.max",
        }
    }

    /// The memory that one group has left.
    fn room(self, group: &Path, free_swap: u64) -> Option<Room> {
        let number = |name: &str| -> Option<u64> {
            let text = std::fs::read_to_string(group.join(name)).ok()?;
            text.trim().parse().ok()
        };
        let stat = std::fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
        let stat = |name: &str| -> u64 {
            let of_line = |line: &str| {
                let (key, value) = line.split_once(' ')?;
                (key == name).then(|| value.trim().parse().ok()).flatten()
            };
            stat.lines().find_map(of_line).unwrap_or(0)
        };
        // (Without a limit, version 2 has "max", version 1 a number beyond any machine's memory.)
        let limit = number(self.limit_file()).filter(|&limit| limit < 1 << 60)?;
        // Pages of files are given back when memory is short; those of shared memory are not among them.
        let (used, reclaimable) = match self {
            Self::One => (
                number("memory.usage_in_bytes")?,
                stat("total_inactive_file") + stat("total_active_file"),
            ),
            Self::Two => (
                number("memory.current")?,
                stat("inactive_file") + stat("active_file") + stat("slab_reclaimable"),
            ),
        };
        let memory = limit.saturating_sub(used.saturating_sub(reclaimable));
        let free = match self {
            // One number bounds memory and swap together, if swap is counted at all.
            Self::One => {
                let both = number("memory.memsw.limit_in_bytes")
                    .zip(number("memory.memsw.usage_in_bytes"))
                    .map(|(limit, used)| limit.saturating_sub(used.saturating_sub(reclaimable)));
                let with_swap = memory.saturating_add(free_swap);
                both.map_or(with_swap, |both| both.min(with_swap))
            }
            Self::Two => {
                let used = number("memory.swap.current").unwrap_or(0);
                // "max", or a kernel that does not count swap.
                let swap =
                    number("memory.swap.max").map_or(free_swap, |max| max.saturating_sub(used));
                memory.saturating_add(swap.min(free_swap))
            }
        };
        Some(Room {
            free,
            limit,
            file: PathBuf::new(),
        })
    }
}

/// A path of mountinfo, in which spaces and the like are `\` and three octal digits.
fn unescaped(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part
            .get(..3)
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match digits {
            Some(byte) => {
                plain.push(char::from(byte));
                plain.push_str(&part[3..]);
            }
            None => {
                plain.push('\\');
                plain.push_str(part);
            }
        }
    }
    plain
}

#[cfg(all(test, not(semring_loom)))]
mod tests {
    use super::*;
    use semring_testkit::names;

    const MIB: u64 = 1 << 20;

    /// A tree of files as the kernel shows them; removed on drop.
    struct Tree(PathBuf);

    impl Tree {
        fn new(files: &[(&str, &str)]) -> Self {
            let root = std::env::temp_dir().join(names::unique("cgroup"));
            for (path, text) in files {
                let path = root.join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, text).unwrap();
            }
            Self(root)
        }

        fn room(&self, free_swap: u64) -> Option<(u64, u64, String)> {
            let room = room_in(&self.0, free_swap)?;
            Some((room.free, room.limit, room.file.display().to_string()))
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    const V1_GROUPS: &str = "9:name=systemd:/\n4:cpu,memory:/a/b\n0::/\n";
    const V1_MOUNT: &str = "30 24 0:26 / /sys/fs/cgroup/mem rw - cgroup cgroup rw,cpu,memory\n\
                            31 24 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
    const NONE: &str = "9223372036854771712\n";

    #[test]
    fn version_1_smallest_room_on_the_way_up() {
        let tree = Tree::new(&[
            ("proc/self/cgroup", V1_GROUPS),
            ("proc/self/mountinfo", V1_MOUNT),
            ("sys/fs/cgroup/mem/memory.limit_in_bytes", NONE),
            ("sys/fs/cgroup/mem/memory.usage_in_bytes", "1\n"),
            ("sys/fs/cgroup/mem/a/memory.limit_in_bytes", "104857600\n"),
            ("sys/fs/cgroup/mem/a/memory.usage_in_bytes", "94371840\n"),
            (
                "sys/fs/cgroup/mem/a/memory.stat",
                "cache 9\ninactive_file 1\ntotal_inactive_file 1048576\ntotal_active_file 2097152\n",
            ),
            ("sys/fs/cgroup/mem/a/b/memory.limit_in_bytes", "209715200\n"),
            ("sys/fs/cgroup/mem/a/b/memory.usage_in_bytes", "1048576\n"),
        ]);
        let file = "/sys/fs/cgroup/mem/a/memory.limit_in_bytes".to_owned();
        assert_eq!(tree.room(0), Some((13 * MIB, 100 * MIB, file.clone())));
        assert_eq!(tree.room(5 * MIB), Some((18 * MIB, 100 * MIB, file)));
    }

    #[test]
    fn version_1_memory_and_swap_together() {
        let tree = Tree::new(&[
            ("proc/self/cgroup", V1_GROUPS),
            ("proc/self/mountinfo", V1_MOUNT),
            ("sys/fs/cgroup/mem/a/b/memory.limit_in_bytes", "104857600\n"),
            ("sys/fs/cgroup/mem/a/b/memory.usage_in_bytes", "0\n"),
            (
                "sys/fs/cgroup/mem/a/b/memory.memsw.limit_in_bytes",
                "115343360\n",
            ),
            ("sys/fs/cgroup/mem/a/b/memory.memsw.usage_in_bytes", "0\n"),
        ]);
        assert_eq!(tree.room(0).unwrap().0, 100 * MIB);
        assert_eq!(tree.room(1 << 30).unwrap().0, 110 * MIB);
    }

    #[test]
    fn version_2_smallest_room_on_the_way_up() {
        let tree = Tree::new(&[
            ("proc/self/cgroup", "0::/app.slice/x.service\n"),
            (
                "proc/self/mountinfo",
                "25 20 0:22 / /proc rw - proc proc rw\n30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n",
            ),
            ("sys/fs/cgroup/memory.stat", "inactive_file 5\n"),
            ("sys/fs/cgroup/app.slice/memory.max", "max\n"),
            ("sys/fs/cgroup/app.slice/memory.current", "1\n"),
            (
                "sys/fs/cgroup/app.slice/x.service/memory.max",
                "104857600\n",
            ),
            (
                "sys/fs/cgroup/app.slice/x.service/memory.current",
                "104857600\n",
            ),
            (
                "sys/fs/cgroup/app.slice/x.service/memory.stat",
                "anon 1\ninactive_file 1048576\nactive_file 1048576\nslab_reclaimable 1048576\n",
            ),
            (
                "sys/fs/cgroup/app.slice/x.service/memory.swap.max",
                "2097152\n",
            ),
            (
                "sys/fs/cgroup/app.slice/x.service/memory.swap.current",
                "1048576\n",
            ),
        ]);
        let file = "/sys/fs/cgroup/app.slice/x.service/memory.max".to_owned();
        assert_eq!(tree.room(0), Some((3 * MIB, 100 * MIB, file.clone())));
        assert_eq!(tree.room(1 << 30), Some((4 * MIB, 100 * MIB, file)));
    }

    /// A container that sees its own group as the mount's root, by its path or through a namespace.
    #[test]
    fn group_of_a_container_is_the_mount_point() {
        for (group, mounted) in [
            ("/docker/0123", "/docker/0123"),
            ("/", "/"),
            ("/../../other", "/"),
            ("/elsewhere", "/docker/0123"),
        ] {
            let groups = format!("4:memory:{group}\n");
            let mounts =
                format!("30 24 0:26 {mounted} /sys/fs/c\\040g rw - cgroup cgroup rw,memory\n");
            let tree = Tree::new(&[
                ("proc/self/cgroup", groups.as_str()),
                ("proc/self/mountinfo", mounts.as_str()),
                ("sys/fs/c g/memory.limit_in_bytes", "4096\n"),
                ("sys/fs/c g/memory.usage_in_bytes", "8192\n"),
            ]);
            assert_eq!(tree.room(0).unwrap().0, 0, "{group} {mounted}");
        }
    }

    #[test]
    fn no_limit_where_nothing_says_one() {
        assert_eq!(Tree::new(&[("empty", "")]).room(0), None);
        let tree = Tree::new(&[
            ("proc/self/cgroup", V1_GROUPS),
            ("proc/self/mountinfo", V1_MOUNT),
            ("sys/fs/cgroup/mem/a/b/memory.limit_in_bytes", NONE),
            ("sys/fs/cgroup/mem/a/b/memory.usage_in_bytes", "0\n"),
        ]);
        assert_eq!(tree.room(0), None);
    }
}
