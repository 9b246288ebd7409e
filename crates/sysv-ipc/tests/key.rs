//! Keys and `ftok`.

use std::ffi::CString;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use sysv_ipc::{Error, Key, Subject, ftok};

/// The C library's own.
fn c_ftok(path: &Path, id: u8) -> i32 {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: `path` ends with a zero byte.
    unsafe { libc::ftok(path.as_ptr(), i32::from(id)) }
}

#[test]
fn ftok_gives_what_the_c_library_gives() {
    let exe = std::env::current_exe().unwrap();
    let paths = [
        "/",
        "/proc",
        "/proc/self/exe",
        "/proc/version",
        "/dev/null",
        "/dev/shm",
        "/etc",
    ];
    let directory = exe.parent().unwrap();
    let files = std::fs::read_dir(directory)
        .unwrap()
        .take(50)
        .map(|entry| entry.unwrap().path());
    let mut compared = 0;
    for path in paths
        .iter()
        .map(Into::into)
        .chain([exe.clone()])
        .chain(files)
    {
        for id in [1, b'A', 127, 128, 255] {
            // Someone may be building into the folder.
            if let Ok(key) = ftok(&path, id) {
                assert_eq!(key.raw(), c_ftok(&path, id), "{path:?} {id}");
                compared += 1;
            }
        }
    }
    assert!(compared >= 5 * 5);
}

#[test]
fn ftok_follows_links() {
    assert_eq!(
        ftok("/proc/self/exe", 1).unwrap(),
        ftok(std::env::current_exe().unwrap(), 1).unwrap()
    );
}

#[test]
fn ftok_refuses_the_id_zero() {
    let error = ftok("/", 0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(
        error.to_string().contains("the project id must not be 0"),
        "{error}"
    );
}

#[test]
fn ftok_matches_stat() {
    let cases = [
        ("/nowhere/at/all", libc::ENOENT),
        ("/dev/null/file", libc::ENOTDIR),
        ("/proc/self/exe/", libc::ENOTDIR),
    ];
    for (path, errno) in cases {
        let error = ftok(path, 1).unwrap_err();
        let kind = error.kind();
        let error = error.downcast::<Error>().unwrap();
        assert_eq!(
            (error.errno(), error.call(), error.subject()),
            (errno, "ftok", Subject::Path)
        );
        assert_eq!(error.kind(), kind);
        assert!(!error.is_removed());
    }
    assert_eq!(ftok("a\0b", 1).unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn keys_print_as_ipcs_prints_them() {
    assert_eq!(Key::from_raw(0x5eed_0001).to_string(), "0x5eed0001");
    assert_eq!(Key::new(1).to_string(), "0x00000001");
    assert_eq!(Key::new(-1).to_string(), "0xffffffff");
    assert_eq!(format!("{:?}", Key::PRIVATE), "Key(0x00000000)");
}

#[test]
fn keys_keep_all_bits() {
    for bits in [0, 1, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
        let key = Key::from_raw(bits);
        assert_eq!(key.bits(), bits);
        assert_eq!(Key::new(key.raw()), key);
        assert_eq!(key.is_private(), bits == 0);
    }
}
