//! The program that the tests in `tests/step.rs` step through: the argument selects the code
//! between the markers.

use std::hint::black_box;

use semring_testkit::step::marker;

fn main() {
    let what = std::env::args().nth(1).expect("an argument");
    match what.as_str() {
        "call" => {
            marker();
            let parent = std::os::unix::process::parent_id();
            marker();
            println!("parent {parent}");
        }
        "folder" => {
            let path = std::env::args().nth(2).expect("a path");
            marker();
            std::fs::create_dir(path).expect("a new folder");
            marker();
        }
        "end" => {
            marker();
            std::process::exit(9);
        }
        "no marker" => {}
        "thread" => {
            let other = std::thread::spawn(marker);
            other.join().expect("a marker elsewhere does nothing");
            marker();
        }
        rounds => {
            let rounds: u64 = rounds.parse().expect("a number of rounds");
            marker();
            let mut sum = 0;
            for round in 0..rounds {
                sum = black_box(sum + round);
            }
            marker();
            println!("sum {sum}");
            marker();
            println!("done");
        }
    }
}
