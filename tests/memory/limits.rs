//! Limits of the system: which one it is, its value, and how to raise it.

use crate::fixture::{ask, peer_below};
use crate::rings;
use semring::{CreateError, HugePages, spsc};
use semring_testkit::names;

/// In an IPC namespace of its own with these settings, makes rings until one is refused, and returns its
/// number and the refusal. The objects end with the namespace.
fn refused(scheme: &str, settings: &[(&str, &str)]) -> Option<(usize, String)> {
    let set: Vec<String> = settings
        .iter()
        .map(|(name, value)| format!("echo '{value}' > /proc/sys/kernel/{name}"))
        .collect();
    let script = format!("{} && exec \"$@\"", set.join(" && "));
    // With pipes there would be no limit of semaphores.
    let semaphores = ["env", "SEMRING_GUARD=semaphore"];
    let alone = ["unshare", "-i", "sh", "-c", &script, "sh"];
    let mut peer = peer_below(&[&semaphores[..], &alone].concat())?;
    let mut made = Vec::new();
    let told = loop {
        let address = format!("{scheme}:{}", names::unique("limit"));
        let told = ask(&mut peer, &format!("create {address} 1 4096"));
        if !told.starts_with("ok ") {
            break told;
        }
        made.push(address);
        assert!(made.len() < 10, "nothing is refused");
    };
    for address in &made {
        assert_eq!(ask(&mut peer, &format!("remove {address}")), "ok");
    }
    Some((made.len() + 1, told))
}

#[test]
fn the_number_of_semaphore_sets_is_named() {
    for scheme in ["posix", "sysv"] {
        let Some((which, told)) = refused(scheme, &[("sem", "250 32000 100 2")]) else {
            return;
        };
        assert_eq!(which, 3, "{told}");
        assert!(told.contains("there are 2 semaphore sets"), "{told}");
        assert!(told.contains("SEMMNI) is 2: raise it"), "{told}");
    }
}

#[test]
fn the_number_of_semaphores_is_named() {
    let Some((which, told)) = refused("posix", &[("sem", "250 25 100 100")]) else {
        return;
    };
    assert_eq!(which, 3, "{told}");
    assert!(told.contains("20 semaphores, 10 more are needed"), "{told}");
    assert!(told.contains("SEMMNS) is 25: raise it"), "{told}");
}

#[test]
fn the_number_of_segments_is_named() {
    let Some((which, told)) = refused("sysv", &[("shmmni", "2")]) else {
        return;
    };
    assert_eq!(which, 3, "{told}");
    assert!(told.contains("kernel.shmmni is 2: raise it"), "{told}");
    // Rings of other memory need no segment.
    let (which, _) =
        refused("posix", &[("shmmni", "2"), ("sem", "250 32000 100 4")]).expect("it just worked");
    assert_eq!(which, 5);
}

#[test]
fn the_size_of_segments_is_named() {
    let Some((which, told)) = refused("sysv", &[("shmmax", "8192")]) else {
        return;
    };
    assert_eq!(which, 1, "{told}");
    assert!(told.contains("kernel.shmmax is 8192; raise it"), "{told}");
    let (which, told) = refused("sysv", &[("shmall", "12")]).expect("it just worked");
    assert_eq!(which, 3, "{told}");
    assert!(told.contains("kernel.shmall is 12: raise it"), "{told}");
}

#[test]
fn huge_pages_are_given_or_refused_with_the_setting() {
    for (pages, setting) in [
        (HugePages::Explicit, "vm.nr_hugepages"),
        (HugePages::Transparent, "shmem_enabled"),
    ] {
        let builder = rings::spsc("memfd:").capacity(4 << 20).huge_pages(pages);
        match builder.create() {
            Ok(ring) => {
                let mut producer = ring.attach_producer().unwrap();
                producer.send(&vec![1; 1 << 20]).unwrap();
                drop(producer);
                assert_eq!(ring.info().unwrap().unread_messages(), 1);
                let again = ring.inheritable().unwrap();
                let address = format!("fd:{}", std::os::fd::AsRawFd::as_raw_fd(&again));
                let mut consumer = spsc::open(address).unwrap().attach_consumer().unwrap();
                assert_eq!(consumer.recv().unwrap().to_vec().len(), 1 << 20);
            }
            Err(CreateError::MemoryLimit { limit, .. }) => {
                assert!(limit.contains(setting), "{limit}");
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn huge_pages_of_the_pool_or_a_refusal() {
    let builder = rings::spsc("anonymous:").capacity(4 << 20);
    match builder.huge_pages(HugePages::Explicit).create() {
        Ok(ring) => {
            let mappings = std::fs::read_to_string("/proc/self/smaps").unwrap();
            assert!(
                mappings.contains("KernelPageSize:     2048 kB"),
                "{mappings}"
            );
            drop(ring);
        }
        Err(CreateError::MemoryLimit { limit, .. }) => {
            assert!(limit.contains("vm.nr_hugepages"), "{limit}");
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn memory_is_locked_in_each_process_that_requests_it() {
    let locked = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmLck:"));
        let words: Vec<_> = line.unwrap().split_whitespace().collect();
        words[1].parse::<u64>().unwrap()
    };
    let before = locked();
    let builder = rings::spsc("memfd:").capacity(1 << 20).lock_memory(true);
    match builder.create() {
        Ok(ring) => {
            assert!(locked() >= before + 1024, "{} of {before}", locked());
            drop(ring);
        }
        Err(CreateError::MemoryLimit { limit, .. }) => {
            assert!(limit.contains("RLIMIT_MEMLOCK"), "{limit}");
        }
        Err(error) => panic!("{error}"),
    }
}
