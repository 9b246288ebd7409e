//! Tests that look at, or clear away, everything that is there: in IPC and mount namespaces of their own,
//! with an empty /dev/shm and an empty folder for temporary files, so that tests beside them neither see nor suffer it.

use std::process::Command;

use semring_testkit::left_out;

use super::Scratch;

/// Set in the process that runs in the namespaces.
const ALONE: &str = "SEMRING_TEST_IS_ALONE";

/// Bytes of the empty /dev/shm, as `mount` takes them.
const ROOMY: &str = "size=1g";

/// Runs `body` in namespaces of its own: the test's binary again, with this test only. `test` is its whole
/// name.
#[track_caller]
pub fn alone(test: &str, body: impl FnOnce()) {
    alone_with(test, ROOMY, "true", body);
}

/// The same with these options of the tmpfs, and after this shell command.
#[track_caller]
pub fn alone_with(test: &str, tmpfs: &str, prepare: &str, body: impl FnOnce()) {
    if std::env::var_os(ALONE).is_some() {
        return body();
    }
    if !can_be_alone() {
        return;
    }
    // Temporary files are in no namespace: use a folder of its own, which is removed with the test.
    let scratch = Scratch::new();
    let script = format!("mount -t tmpfs -o {tmpfs} tmpfs /dev/shm && {prepare} && exec \"$@\"");
    let [unshare, options @ ..] = &unshare()[..] else {
        unreachable!("a command");
    };
    let output = Command::new(unshare)
        .args(options)
        .args(["sh", "-c", &script, "sh"])
        .arg(std::env::current_exe().expect("the path of this program"))
        .args(["--exact", test, "--nocapture"])
        .env(ALONE, "yes")
        .env("TMPDIR", scratch.directory())
        .output()
        .expect("unshare runs");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && stdout.contains("1 passed"),
        "{}\n{stdout}\n{stderr}",
        output.status
    );
    print!("{stdout}");
}

/// `unshare` with what this user needs for it.
fn unshare() -> Vec<&'static str> {
    let mut command = vec!["unshare", "--ipc", "--mount"];
    if !nix::unistd::geteuid().is_root() {
        command.extend(["--user", "--map-root-user"]);
    }
    command.push("--");
    command
}

/// Containers may forbid it; on a plain machine root always can. Otherwise the calling test is noted as left out.
fn can_be_alone() -> bool {
    left_out::can_run(&[&unshare()[..], &["true"]].concat())
}

/// The whole name of a test function in this file, for [`alone`].
macro_rules! test_name {
    ($function:ident) => {
        concat!(module_path!(), "::", stringify!($function))
            .split_once("::")
            .expect("a module path begins with the crate")
            .1
    };
}
pub(crate) use test_name;
