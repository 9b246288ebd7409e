//! Cases of rings with pipes only.

use crate::rings;
use semring::{AttachError, GuardChoice, RecvError, any};
use semring_testkit::names;

/// A file that is moved away from its pipes gets new ones, and no process goes on with the old.
#[test]
fn moved_file_gets_new_pipes() {
    let folder = std::env::temp_dir().join(names::unique("moved"));
    let (from, to) = (folder.join("from"), folder.join("to"));
    for folder in [&from, &to] {
        std::fs::create_dir_all(folder).unwrap();
    }
    let address = |folder: &std::path::Path| format!("file:{}", folder.join("ring").display());
    let builder = rings::spsc(address(&from)).guard(GuardChoice::Pipe);
    let old = builder.create().unwrap();
    let mut producer = old.attach_producer().unwrap();
    producer.send(b"kept").unwrap();
    std::fs::rename(from.join("ring"), to.join("ring")).unwrap();
    // A process has a role through the old ones.
    let refused = any::open(address(&to)).unwrap_err();
    assert!(refused.to_string().contains("its role"), "{refused}");
    drop(producer);
    let new = any::open(address(&to)).unwrap();
    assert_eq!(old.attach_producer().map(drop), Err(AttachError::Removed));
    assert_eq!(old.attach_consumer().map(drop), Err(AttachError::Removed));
    let mut consumer = new.attach_consumer().unwrap();
    assert_eq!(consumer.recv().unwrap().to_vec(), b"kept");
    let end = consumer.recv().map(|_| ());
    assert!(matches!(end, Err(RecvError::EndOfStream { .. })));
    drop((consumer, new, old));
    std::fs::remove_dir_all(&folder).unwrap();
}
