//! The surroundings: /dev/shm, namespaces, the service manager, filters of system calls.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use nix::unistd::{AccessFlags, access, geteuid};

use super::{Check, DEFAULT_RING_BYTES, State};
use crate::units::human_bytes;

const DEV_SHM: &str = "/dev/shm";

pub(super) fn dev_shm() -> Check {
    const NAME: &str = "/dev/shm";
    const ENLARGE: &str = "mount -o remount,size=… /dev/shm (to keep it: in /etc/fstab); docker run \
                           --shm-size=…; or use sysv: rings, which /dev/shm does not bound";
    let status = match statfs(DEV_SHM) {
        Ok(status) => status,
        Err(error) => {
            return Check::not_ok(
                NAME,
                State::Problem,
                format!("not there ({})", error.desc()),
                "mkdir -p /dev/shm && mount -t tmpfs -o mode=1777 tmpfs /dev/shm",
            );
        }
    };
    let block = u64::try_from(status.block_size()).unwrap_or(0);
    let size = status.blocks().saturating_mul(block);
    let free = status.blocks_available().saturating_mul(block);
    let used = size.saturating_sub(status.blocks_free().saturating_mul(block));
    // A tmpfs without a limit reports 0 of 0.
    let unlimited = size == 0;
    let use_of = if unlimited {
        "no limit".to_owned()
    } else {
        format!("{} of {} in use", human_bytes(used), human_bytes(size))
    };
    if access(DEV_SHM, AccessFlags::W_OK | AccessFlags::X_OK).is_err() {
        return Check::not_ok(
            NAME,
            State::Problem,
            format!("{use_of}; you may not make files there"),
            "chmod 1777 /dev/shm; mount it read-write",
        );
    }
    if !unlimited && free < DEFAULT_RING_BYTES {
        let needed = human_bytes(DEFAULT_RING_BYTES);
        let finding = format!("{use_of}: no room for a ring of {needed}");
        return Check::not_ok(NAME, State::Problem, finding, ENLARGE);
    }
    if status.filesystem_type() != TMPFS_MAGIC {
        return Check::not_ok(
            NAME,
            State::Warning,
            format!("{use_of}; not a tmpfs, so rings are written to a disk"),
            "mount -t tmpfs -o mode=1777 tmpfs /dev/shm",
        );
    }
    if !unlimited && free < size / 10 {
        return Check::not_ok(
            NAME,
            State::Warning,
            format!("{use_of}: little is left"),
            ENLARGE,
        );
    }
    Check::ok(NAME, use_of)
}

/// Inode numbers of the namespaces that the machine begins with, the same on every kernel.
const FIRST_IPC: u64 = 0xefff_ffff;
const FIRST_PID: u64 = 0xefff_fffc;

pub(super) fn namespaces() -> Check {
    const NAME: &str = "namespaces";
    let inode = |kind: &str| {
        std::fs::metadata(format!("/proc/self/ns/{kind}"))
            .ok()
            .map(|metadata| metadata.ino())
    };
    let (Some(ipc), Some(pid)) = (inode("ipc"), inode("pid")) else {
        return Check::not_ok(
            NAME,
            State::Warning,
            "unknown: /proc is not mounted. Rings work; memfd rings can't be passed on, anonymous ones have no pipes",
            "mount /proc",
        );
    };
    let name = |inode: u64, first: u64| {
        if inode == first {
            "the machine's".to_owned()
        } else {
            format!("its own ({inode})")
        }
    };
    let container = container(Path::new("/")).map_or_else(String::new, |kind| format!(" ({kind})"));
    let mut finding = format!(
        "IPC: {}, pid: {}{container}",
        name(ipc, FIRST_IPC),
        name(pid, FIRST_PID)
    );
    if ipc != FIRST_IPC {
        finding +=
            "; rings are shared with processes of the same IPC namespace only (docker run --ipc=…)";
    }
    Check::ok(NAME, finding)
}

/// The kind of container, if it declares one.
fn container(root: &Path) -> Option<String> {
    let has = |path: &str| root.join(path).exists();
    if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
        return Some("Kubernetes".to_owned());
    }
    if has(".dockerenv") {
        return Some("Docker".to_owned());
    }
    if has("run/.containerenv") {
        return Some("Podman".to_owned());
    }
    let kind = std::fs::read_to_string(root.join("run/systemd/container")).ok()?;
    let kind = kind.trim();
    (!kind.is_empty()).then(|| kind.to_owned())
}

pub(super) fn remove_ipc() -> Check {
    judge_remove_ipc(Path::new("/"), geteuid().as_raw())
}

/// Users below this are the system's, and keep their objects.
const FIRST_PERSON: u32 = 1000;

fn judge_remove_ipc(root: &Path, uid: u32) -> Check {
    const NAME: &str = "RemoveIPC";
    if !root.join("run/systemd/seats").exists() && !root.join("run/systemd/system").exists() {
        return Check::ok(NAME, "systemd does not run here");
    }
    let (on, told_by) = configured(root);
    let source = told_by.map_or_else(
        || "systemd's default".to_owned(),
        |path| path.display().to_string(),
    );
    if !on {
        return Check::ok(NAME, format!("no ({source}): rings outlive a logout"));
    }
    if uid < FIRST_PERSON {
        return Check::ok(
            NAME,
            format!("yes ({source}), which spares users below {FIRST_PERSON}"),
        );
    }
    Check::not_ok(
        NAME,
        State::Warning,
        format!(
            "yes ({source}): when you have logged out, your rings are removed, also under running programs"
        ),
        "a file /etc/systemd/logind.conf.d/semring.conf with the lines [Login] and RemoveIPC=no, then \
         systemctl restart systemd-logind; or run the programs as a system user",
    )
}

/// Whether RemoveIPC is on, and in which file: the last one that sets it, of logind.conf and the
/// drop-ins in the order of their names. Of files with the same name, the one in the first folder
/// counts.
fn configured(root: &Path) -> (bool, Option<PathBuf>) {
    const FOLDERS: [&str; 4] = [
        "etc/systemd",
        "run/systemd",
        "usr/local/lib/systemd",
        "usr/lib/systemd",
    ];
    let main = FOLDERS
        .iter()
        .map(|folder| root.join(folder).join("logind.conf"))
        .find(|path| path.exists());
    let mut drop_ins = BTreeMap::new();
    for folder in FOLDERS {
        let entries = std::fs::read_dir(root.join(folder).join("logind.conf.d"));
        for entry in entries.into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|end| end == "conf") {
                drop_ins.entry(entry.file_name()).or_insert(entry.path());
            }
        }
    }
    let mut result = (true, None);
    for path in main.into_iter().chain(drop_ins.into_values()) {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        if let Some(on) = assignment(&text) {
            result = (on, Some(path));
        }
    }
    result
}

/// The last assignment in the section \[Login\]. An empty one goes back to the default.
fn assignment(text: &str) -> Option<bool> {
    let mut in_login = false;
    let mut last = None;
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            in_login = line == "[Login]";
        } else if let Some((key, value)) = line.split_once('=')
            && in_login
            && key.trim() == "RemoveIPC"
        {
            last = match value.trim().to_ascii_lowercase().as_str() {
                "1" | "yes" | "y" | "true" | "t" | "on" | "" => Some(true),
                "0" | "no" | "n" | "false" | "f" | "off" => Some(false),
                // systemd logs it in the journal, and keeps the previous value.
                _ => last,
            };
        }
    }
    last
}

pub(super) fn filter() -> Check {
    const NAME: &str = "seccomp";
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().parse::<u64>().ok()
    };
    match field("Seccomp:") {
        None => Check::ok(
            NAME,
            "unknown (/proc is not mounted); the trials below show whether rings work",
        ),
        Some(0) => Check::ok(NAME, "no filter"),
        Some(_) => {
            let filters = field("Seccomp_filters:").unwrap_or(1);
            let filters = crate::units::count(filters, "filter");
            Check::ok(
                NAME,
                format!("{filters}; the trials below show whether rings work"),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A root with some files, which is removed with the test.
    struct Root(PathBuf);

    impl Root {
        fn new(label: &str, files: &[(&str, &str)]) -> Self {
            let name = format!("semring-doctor-{label}-{}", std::process::id());
            let root = Self(std::env::temp_dir().join(name));
            for (path, text) in files {
                let path = root.0.join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, text).unwrap();
            }
            root
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    const RUNS: (&str, &str) = ("run/systemd/system/x", "");

    #[test]
    fn without_systemd_nobody_removes_anything() {
        let root = Root::new(
            "none",
            &[("etc/systemd/logind.conf", "[Login]\nRemoveIPC=yes\n")],
        );
        assert_eq!(judge_remove_ipc(&root.0, 1000).state, State::Ok);
    }

    #[test]
    fn the_default_is_a_warning_for_people_only() {
        let root = Root::new("default", &[RUNS]);
        let check = judge_remove_ipc(&root.0, 1000);
        assert_eq!(check.state, State::Warning);
        assert!(check.finding.contains("systemd's default") && check.fix.is_some());
        assert_eq!(judge_remove_ipc(&root.0, 0).state, State::Ok);
    }

    #[test]
    fn the_last_file_that_says_so_counts() {
        let root = Root::new(
            "drop-ins",
            &[
                RUNS,
                ("etc/systemd/logind.conf", "[Login]\nRemoveIPC=yes\n"),
                ("usr/lib/systemd/logind.conf", "[Login]\nRemoveIPC=maybe\n"),
                (
                    "usr/lib/systemd/logind.conf.d/50-a.conf",
                    "[Login]\nRemoveIPC=yes\n",
                ),
                (
                    "etc/systemd/logind.conf.d/50-a.conf",
                    "[Login]\n RemoveIPC = off\n",
                ),
                (
                    "etc/systemd/logind.conf.d/40-b.conf",
                    "[Login]\nRemoveIPC=1\n",
                ),
                (
                    "etc/systemd/logind.conf.d/60-c.conf",
                    "[Other]\nRemoveIPC=yes\n#RemoveIPC=yes\n",
                ),
            ],
        );
        let (on, told_by) = configured(&root.0);
        assert!(!on);
        assert!(
            told_by
                .unwrap()
                .ends_with("etc/systemd/logind.conf.d/50-a.conf")
        );
        assert_eq!(judge_remove_ipc(&root.0, 1000).state, State::Ok);
    }

    #[test]
    fn assignments_are_read_as_systemd_reads_them() {
        assert_eq!(assignment("RemoveIPC=no\n"), None);
        assert_eq!(assignment("[Login]\n#RemoveIPC=no\n"), None);
        assert_eq!(
            assignment("[Login]\nRemoveIPC=no\nRemoveIPC=\n"),
            Some(true)
        );
        assert_eq!(
            assignment("[Login]\nRemoveIPC=no\nRemoveIPC=perhaps\n"),
            Some(false)
        );
    }

    #[test]
    fn containers_are_known_by_their_marks() {
        let podman = Root::new("podman", &[("run/.containerenv", "")]);
        assert_eq!(container(&podman.0).as_deref(), Some("Podman"));
        let nspawn = Root::new("nspawn", &[("run/systemd/container", "systemd-nspawn\n")]);
        assert_eq!(container(&nspawn.0).as_deref(), Some("systemd-nspawn"));
    }
}
