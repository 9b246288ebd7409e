//! Every wait of producer and consumer is ended by a signal and by `--timeout`, for every kind of stdin
//! and stdout.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use nix::sys::signal::Signal;
use semring_testkit::peer::Exit;

use crate::support::terminal::new_terminal;
use crate::support::{BROKEN_PIPE, DONE, Ring, TIMED_OUT, Tool, over_both_backends};

over_both_backends! {
    a_signal_is_no_time_out,
    a_stdout_that_takes_nothing_obeys_the_time_out,
    a_reset_connection_is_a_broken_pipe,
    input_that_another_process_took_is_waited_for,
}

/// A signal that is not ignored here, and so not in the programs started from here.
fn signals() -> Vec<Signal> {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc");
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .expect("a line of this name");
    let ignored = u64::from_str_radix(mask.trim(), 16).expect("a mask");
    [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM]
        .into_iter()
        .filter(|signal| ignored & (1 << (*signal as i32 - 1)) == 0)
        .collect()
}

/// Kinds of stdout whose other end takes nothing; it must be held.
fn stuck_outputs() -> Vec<(&'static str, OwnedFd, OwnedFd)> {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let (near, far) = UnixStream::pair().expect("a pair of sockets");
    let (here, there) = tcp_pair();
    let (master, slave) = new_terminal();
    vec![
        ("pipe", writer.into(), reader.into()),
        ("socket", near.into(), far.into()),
        ("connection", here.into(), there.into()),
        ("terminal", slave.into(), master.into()),
    ]
}

fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let here = TcpStream::connect(listener.local_addr().expect("its address")).expect("it listens");
    let (there, _) = listener.accept().expect("a connection");
    (here, there)
}

/// Waits until it sleeps for a descriptor.
#[track_caller]
fn wait_until_polling(tool: &mut Tool) {
    #[cfg(target_arch = "x86_64")]
    tool.wait_until_in(&[libc::SYS_poll, libc::SYS_ppoll]);
    #[cfg(not(target_arch = "x86_64"))]
    tool.wait_until_in(&[libc::SYS_ppoll]);
}

/// More than any pipe, socket or terminal takes: 12 MB.
fn fill(ring: &Ring) {
    ring.semring("create", &["--capacity", "16M", "--producers", "1"])
        .run()
        .quietly(DONE);
    let mut line = vec![b'x'; 1000];
    line.push(b'\n');
    ring.producer(&["-q"])
        .input(line.repeat(12_000))
        .run()
        .quietly(DONE);
}

fn a_signal_is_no_time_out(ring: &Ring) {
    const WAITS: [&str; 3] = ["-q", "--timeout", "1h"];
    for signal in signals() {
        let ended = |tool: Tool| {
            tool.signal(signal);
            tool.finish_with_stdin_open()
                .quietly(Exit::Signal(signal as i32));
        };
        // For messages.
        let mut consumer = ring.consumer(&WAITS).start();
        consumer.wait_until_asleep_on_the_ring();
        ended(consumer);
        // For stdin.
        let mut producer = ring.producer(&WAITS).stdin_open().start();
        ring.wait_for_producers(1);
        wait_until_polling(&mut producer);
        ended(producer);
        ring.assert_gone();
        // For room.
        ring.semring("create", &["--capacity", "4K"])
            .run()
            .quietly(DONE);
        let mut producer = ring.producer(&WAITS).feed_endless_seq().start();
        producer.wait_until_asleep_on_the_ring();
        producer.signal(signal);
        let output = producer.finish().ended(Exit::Signal(signal as i32));
        assert!(output.stderr.contains("interrupted"), "{}", output.stderr);
        ring.semring("rm", &[]).run().quietly(DONE);
    }
    // For a reader.
    fill(ring);
    for (signal, kinds) in signals().into_iter().zip([1, 1, 4]) {
        for (kind, stdout, other_end) in stuck_outputs().into_iter().take(kinds) {
            let mut consumer = ring.consumer(&WAITS).stdout(stdout).start();
            ring.wait_for_consumer(&consumer);
            wait_until_polling(&mut consumer);
            consumer.signal(signal);
            let output = consumer.finish();
            assert_eq!(output.exit, Exit::Signal(signal as i32), "{kind}");
            output.quietly(Exit::Signal(signal as i32));
            drop(other_end);
        }
    }
    ring.semring("rm", &[]).run().quietly(DONE);
}

fn a_stdout_that_takes_nothing_obeys_the_time_out(ring: &Ring) {
    fill(ring);
    for (kind, stdout, other_end) in stuck_outputs() {
        let consumer = ring.consumer(&["-q", "--timeout", "50ms"]).stdout(stdout);
        let output = consumer.run();
        assert_eq!(output.exit, TIMED_OUT, "{kind}");
        output.said(TIMED_OUT, &["nothing moved"]);
        drop(other_end);
    }
    ring.semring("rm", &[]).run().quietly(DONE);
}

fn a_reset_connection_is_a_broken_pipe(ring: &Ring) {
    let (stdout, reader) = tcp_pair();
    let consumer = ring.consumer(&["-q"]).stdout(OwnedFd::from(stdout)).start();
    ring.wait_for_consumer(&consumer);
    let producer = ring.producer(&["-q"]).feed_endless_seq().start();
    // Closed with unread bytes: the kernel resets the connection.
    reader.peek(&mut [0; 4096]).expect("it has begun");
    drop(reader);
    consumer.finish().quietly(BROKEN_PIPE);
    producer.finish().quietly(BROKEN_PIPE);
    ring.assert_gone();
}

/// Producers on one pipe: the one that finds nothing after all must not sleep in read(2) for ever.
fn input_that_another_process_took_is_waited_for(ring: &Ring) {
    const PRODUCERS: usize = 6;
    ring.semring("create", &[]).run().quietly(DONE);
    for framing in ["--lines", "--raw"] {
        let (stdin, mut writer) = std::io::pipe().expect("a pipe");
        let mut producers: Vec<Tool> = (0..PRODUCERS)
            .map(|_| {
                let stdin = stdin.try_clone().expect("a descriptor");
                ring.producer(&["-q", framing]).stdin(stdin).start()
            })
            .collect();
        ring.wait_for_producers(PRODUCERS as u64);
        for round in 0..20 {
            producers.iter_mut().for_each(wait_until_polling);
            // All of them wake up, one gets it.
            writer
                .write_all(format!("{round}\n").as_bytes())
                .expect("they read");
        }
        for producer in producers {
            producer.signal(Signal::SIGTERM);
            producer
                .finish_with_stdin_open()
                .quietly(Exit::Signal(libc::SIGTERM));
        }
    }
    ring.semring("rm", &["--force"]).run().quietly(DONE);
}

#[test]
fn a_second_reader_of_stdin_is_reported() {
    let ring = Ring::posix("second-reader");
    let (stdin, writer) = std::io::pipe().expect("a pipe");
    let clone = || stdin.try_clone().expect("a descriptor");
    let first = ring.producer(&["-q"]).stdin(clone()).start();
    ring.wait_for_producers(1);
    let second = ring.producer(&[]).stdin(clone()).start();
    let alone = ring.producer(&[]).stdin_open().start();
    ring.wait_for_producers(3);
    drop(writer);
    let sentence = format!("producer {} reads the same stdin", first.pid());
    second.finish().said(DONE, &[&sentence]);
    alone.finish().quietly(DONE);
    first.finish().quietly(DONE);
    ring.consumer(&[]).run().quietly(DONE).wrote("");
}
