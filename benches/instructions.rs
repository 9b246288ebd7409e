//! Instructions for each message, counted by callgrind: the same on every run, independent of other load.
//!
//! One thread, one ring of one lane: 64 messages are sent, then 64 are received, repeatedly. Only the named half is
//! counted, including its occasional steps (padding at the end of the lane, a store of `released`, a check of the
//! consumer). In *asymmetric* mode, in which a busy pair of processes runs, a producer publishes without a fence.
//!
//! ```sh
//! cargo bench --bench instructions [-- FILTER]     # needs valgrind
//! ```

use std::hint::black_box;
use std::process::Command;

use semring::spsc;

const MESSAGES: usize = 64;
const BATCH: usize = 32;
const ROUNDS: usize = 256;
/// More than a lap of the lane: enough for a producer to leave fenced mode.
const WARM_UP_ROUNDS: usize = 64;

/// The environment variable that names the case to a process that runs under callgrind.
const CASE: &str = "SEMRING_INSTRUCTIONS_CASE";

struct Pair {
    producer: spsc::Producer,
    consumer: spsc::Consumer,
}

/// Callgrind counts what runs in here.
#[inline(never)]
fn counted_part(part: impl FnOnce()) {
    part();
}

fn run(part: impl FnOnce(), is_counted: bool) {
    if is_counted {
        counted_part(part);
    } else {
        part();
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Half {
    Send,
    SendSlice,
    TrySend,
    Reserve,
    Recv,
    TryRecv,
    Push,
    Take,
    SendAll,
    RecvAll,
    ReserveArray,
    RecvArray,
}

const HALVES: [(Half, &str); 12] = [
    (Half::Send, "send"),
    (Half::SendSlice, "send (a slice)"),
    (Half::TrySend, "try_send"),
    (Half::Reserve, "reserve, write, commit"),
    (Half::Recv, "recv"),
    (Half::TryRecv, "try_recv"),
    (Half::Push, "push, batch of 32"),
    (Half::Take, "take, batch of 32"),
    (Half::SendAll, "send_all, 32"),
    (Half::RecvAll, "recv_all, 32"),
    (Half::ReserveArray, "reserve_array, commit, 32"),
    (Half::RecvArray, "recv_array, in place, 32"),
];

fn send<const LEN: usize>(pair: &mut Pair, half: Half) {
    let producer = &mut pair.producer;
    let bytes = black_box([7; LEN]);
    match half {
        Half::SendSlice => {
            let slice = black_box(&bytes[..]);
            run(
                || (0..MESSAGES).for_each(|_| producer.send(slice).expect("room")),
                true,
            );
        }
        Half::TrySend => {
            run(
                || (0..MESSAGES).for_each(|_| producer.try_send(&bytes).expect("room")),
                true,
            );
        }
        Half::Reserve => run(
            || {
                for _ in 0..MESSAGES {
                    let mut reservation = producer.reserve(LEN).expect("room");
                    reservation.write_at(0, &bytes);
                    reservation.commit();
                }
            },
            true,
        ),
        Half::SendAll => {
            let array = black_box([[7_u8; LEN]; BATCH]);
            run(
                || {
                    for _ in 0..MESSAGES / BATCH {
                        producer.send_all(&array).expect("room");
                    }
                },
                true,
            );
        }
        // The messages are not written: that is the program's part.
        Half::ReserveArray => run(
            || {
                for _ in 0..MESSAGES / BATCH {
                    let mut array = producer.reserve_array(LEN, BATCH).expect("room");
                    black_box(array.as_mut_slice().expect("trusted"));
                    array.commit(BATCH);
                }
            },
            true,
        ),
        Half::RecvAll | Half::RecvArray => {
            for _ in 0..MESSAGES / BATCH {
                producer.send_all(&[bytes; BATCH]).expect("room");
            }
        }
        Half::Push => run(
            || {
                for _ in 0..MESSAGES / BATCH {
                    let mut batch = producer.batch();
                    (0..BATCH).for_each(|_| batch.push(&bytes).expect("room"));
                    batch.commit();
                }
            },
            true,
        ),
        _ => run(
            || (0..MESSAGES).for_each(|_| producer.send(&bytes).expect("room")),
            half == Half::Send,
        ),
    }
}

fn receive<const LEN: usize>(pair: &mut Pair, half: Half) {
    let consumer = &mut pair.consumer;
    let mut bytes = [0; LEN];
    match half {
        Half::TryRecv => run(
            || {
                for _ in 0..MESSAGES {
                    consumer.try_recv().expect("a message").copy_to(&mut bytes);
                    black_box(&mut bytes);
                }
            },
            true,
        ),
        Half::RecvAll => {
            let mut all: Vec<[u8; LEN]> = Vec::with_capacity(MESSAGES);
            run(
                || {
                    for _ in 0..MESSAGES / BATCH {
                        consumer.recv_all(&mut all).expect("messages");
                    }
                },
                true,
            );
            assert_eq!(all.len(), MESSAGES);
        }
        Half::RecvArray => run(
            || {
                for _ in 0..MESSAGES / BATCH {
                    let array = consumer.recv_array().expect("messages");
                    black_box(array.as_slice().expect("trusted"));
                }
            },
            true,
        ),
        Half::Take => run(
            || {
                for _ in 0..MESSAGES / BATCH {
                    let mut batch = consumer.recv_batch().expect("messages");
                    for _ in 0..BATCH {
                        batch.next_message().expect("one more").copy_to(&mut bytes);
                        black_box(&mut bytes);
                    }
                }
            },
            true,
        ),
        _ => run(
            || {
                for _ in 0..MESSAGES {
                    consumer.recv().expect("a message").copy_to(&mut bytes);
                    black_box(&mut bytes);
                }
            },
            half == Half::Recv,
        ),
    }
}

/// The work of a process under callgrind.
fn run_case<const LEN: usize>(half: Half, asymmetric: bool) {
    let builder = spsc::Builder::memfd().asymmetric_barrier(asymmetric);
    // SAFETY: both handles are in this process, which changes no byte of a message that it has.
    let builder = unsafe { builder.trust_peers() };
    let ring = builder.create().expect("a ring");
    let mut pair = Pair {
        // First the consumer, so that the producer finds one that makes barriers.
        consumer: ring.attach_consumer().expect("the role"),
        producer: ring.attach_producer().expect("a lane"),
    };
    for _ in 0..WARM_UP_ROUNDS {
        for number in 0..MESSAGES {
            pair.producer.send(&[number as u8; LEN]).expect("room");
        }
        for number in 0..MESSAGES {
            let mut bytes = [0; LEN];
            pair.consumer.recv().expect("a message").copy_to(&mut bytes);
            assert_eq!(bytes, [number as u8; LEN], "a wrong message");
        }
    }
    for _ in 0..ROUNDS {
        send::<LEN>(&mut pair, half);
        receive::<LEN>(&mut pair, half);
    }
}

/// Instructions in `counted_part`, from what callgrind prints.
fn count(case: &str) -> f64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg("--toggle-collect=*counted_part*")
        .arg(std::env::current_exe().expect("this program"))
        .env(CASE, case)
        .output()
        .expect("valgrind, which must be installed");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{case}: {text}");
    let collected = text
        .lines()
        .find_map(|line| line.split("Collected : ").nth(1));
    let collected: f64 = collected
        .and_then(|count| count.trim().parse().ok())
        .expect("a count");
    collected / (ROUNDS * MESSAGES) as f64
}

fn main() {
    if let Ok(case) = std::env::var(CASE) {
        let mut words = case.split('/');
        let mut word = || words.next().expect("half/bytes/mode");
        let name = word();
        let (half, _) = HALVES
            .into_iter()
            .find(|(_, of)| *of == name)
            .expect("a half");
        let (len, asymmetric) = (word(), word() == "asymmetric");
        return if len == "8" {
            run_case::<8>(half, asymmetric);
        } else {
            run_case::<64>(half, asymmetric);
        };
    }
    let filter = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'));
    println!("| instructions a message | 8 B | 64 B | fenced, 8 B | 64 B |\n|---|--:|--:|--:|--:|");
    for (_, name) in HALVES {
        if filter
            .as_ref()
            .is_some_and(|part| !name.contains(part.as_str()))
        {
            continue;
        }
        print!("| {name} ");
        for mode in ["asymmetric", "fenced"] {
            for len in [8, 64] {
                print!("| {:.1} ", count(&format!("{name}/{len}/{mode}")));
            }
        }
        println!("|");
    }
}
