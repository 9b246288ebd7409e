//! The last binary of `cargo test --workspace`: prints the tests that were left out, and why.

fn main() {
    // nextest requests the names of the tests: there are none here.
    if std::env::args().any(|argument| argument == "--list") {
        return;
    }
    let noted = tests_left_out::noted().expect("the list of tests that were left out");
    let file = tests_left_out::file();
    match noted.len() {
        0 => println!("\nNo test was left out."),
        count => {
            println!("\nLeft out here: {count} (in {})", file.display());
            for line in noted {
                println!("  {line}");
            }
        }
    }
}
