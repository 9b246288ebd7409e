//! Advice for refusals by the system: the limit that an error number stands for, and how to raise it.

use std::io;

use crate::os::errno;

/// The call, the kernel's error, and advice where there is any.
pub(super) fn refusal(call: &str, source: &io::Error) -> String {
    let number = source.raw_os_error().unwrap_or(0);
    format!("{call}: {source}{}", advice(call, number))
}

/// The same for an error number.
pub(super) fn refusal_of(call: &str, number: i32) -> String {
    refusal(call, &io::Error::from_raw_os_error(number))
}

fn advice(call: &str, number: i32) -> &'static str {
    match (number, call) {
        (errno::EMFILE, "inotify_init1") => {
            " (RLIMIT_NOFILE of this process, or fs.inotify.max_user_instances; raise it)"
        }
        (errno::EMFILE, _) => {
            " (this process has as many descriptors as RLIMIT_NOFILE allows; raise it: ulimit -n, LimitNOFILE= of a \
             service, --ulimit nofile= of a container; a ring with semaphores or with fewer producers needs fewer)"
        }
        (errno::ENFILE, _) => {
            " (the machine has as many open files as fs.file-max allows, or this user's pipes as much memory as \
             fs.pipe-user-pages-hard allows; raise it with sysctl -w)"
        }
        (errno::ENOSPC, "epoll_ctl") => {
            " (this user has as many watches as fs.epoll.max_user_watches allows; raise it with sysctl -w)"
        }
        (errno::ENOSPC, "inotify_add_watch") => {
            " (this user has as many watches as fs.inotify.max_user_watches allows; raise it with sysctl -w)"
        }
        (errno::ENOSPC, "semop" | "semtimedop") => {
            " (no undo structure left: too many processes use semaphores)"
        }
        (errno::ENOSPC, _) => {
            " (the file system is full, or has no inodes left: df, df -i; free some there, or enlarge it)"
        }
        (errno::EDQUOT, _) => " (your disk quota is used up; remove files there)",
        (errno::EFBIG, _) => {
            " (this process may write files up to RLIMIT_FSIZE only; raise it: ulimit -f, LimitFSIZE= of a service)"
        }
        (errno::E2BIG, "semop" | "semtimedop") => {
            " (the third value of kernel.sem is too small for this number of lanes: raise it or use fewer producers)"
        }
        (errno::ENOMEM, "openat" | "pipe2") => {
            " (no memory for one more pipe: the kernel's, or what fs.pipe-user-pages-hard allows this user)"
        }
        (errno::ENOMEM, _) => {
            " (no memory: the machine's, that of this process's control group, or of its address space, RLIMIT_AS)"
        }
        (errno::EACCES, "semop" | "semtimedop") => {
            " (this process may not use the ring's semaphores any more: it became another user after it attached, or \
             the owner changed their mode; close the handle, attach after the change of user, or use a ring with pipes)"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_explained_by_the_call_that_it_stopped() {
        let full = |call| refusal_of(call, errno::ENOSPC);
        assert!(full("semop").contains("undo"));
        assert!(full("epoll_ctl").contains("fs.epoll.max_user_watches"));
        assert!(!full("epoll_ctl").contains("semaphore"));
        assert!(full("mkdir").contains("inodes"));
        assert!(refusal_of("openat", errno::EMFILE).contains("ulimit -n"));
        assert!(refusal_of("pwrite", errno::EFBIG).contains("ulimit -f"));
        // The C libraries have different words for it.
        let plain = io::Error::from_raw_os_error(errno::EIO);
        assert_eq!(refusal("open", &plain), format!("open: {plain}"));
    }
}
