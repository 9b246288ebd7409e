//! The command line.

use semring::WaitStrategy;

use super::crowd::Crowd;

/// The text of `--help`.
pub const HELP: &str = "\
Kills and stops producers and consumers of message rings at random moments, starts them again, and
accounts for every message. Exit code 0: nothing was lost, damaged, reordered, duplicated, unexpected or
left; 1: something was; 2: the arguments are wrong.

  --kills N        SIGKILLs altogether (20000)
  --seed N         repeats the decisions of another run (the time)
  --round N        begins with this round of the seed (0)
  --backend B      posix or sysv (each round another)
  --capacity N     bytes of a lane: 4096, 65536, 262144 … (each round another)
  --producers N    producers at a time (8)
  --lanes N        lanes of a ring (from as many as producers to 24)
  --wait S         block, adaptive, yield or spin (each round another)
  --pace N         microseconds between two actions, in the middle (200)
  --round-kills N  kills in a round (about 1000)
  --progress N     seconds between two lines on stderr (5)

In place of a storm: one short-lived process after the other, every second one ended by SIGKILL.

  --crowd ROLE     producer (each leaves a message of 8 bytes) or consumer
  --address RING   of this ring, which is there
  --visits N       number of processes (33000)
";

/// The options of a run; each round chooses those that are `None`.
pub struct Options {
    pub kills: u64,
    pub seed: u64,
    pub first_round: u64,
    pub posix: Option<bool>,
    pub capacity: Option<u64>,
    pub producers: usize,
    pub lanes: Option<usize>,
    pub wait: Option<WaitStrategy>,
    pub pace: u64,
    pub round_kills: Option<u64>,
    pub progress: u64,
    pub crowd: Option<Crowd>,
}

impl Options {
    /// Reads the arguments; `None` if help is requested.
    pub fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let mut options = Options {
            kills: 20_000,
            seed: now.map_or(1, |now| now.as_nanos() as u64 >> 10),
            first_round: 0,
            posix: None,
            capacity: None,
            producers: 8,
            lanes: None,
            wait: None,
            pace: 200,
            round_kills: None,
            progress: 5,
            crowd: None,
        };
        let (mut crowd, mut address, mut visits) = (None, None, 33_000);
        while let Some(option) = arguments.next() {
            if option == "--help" || option == "-h" {
                return Ok(None);
            }
            let value = arguments
                .next()
                .ok_or_else(|| format!("{option} needs a value"))?;
            let number = || {
                value
                    .parse::<u64>()
                    .map_err(|_| format!("{option} {value}: that is no number"))
            };
            match option.as_str() {
                "--kills" => options.kills = number()?,
                "--seed" => options.seed = number()?,
                "--round" => options.first_round = number()?,
                "--capacity" => options.capacity = Some(number()?.clamp(4096, 1 << 32)),
                "--producers" => options.producers = number()?.clamp(1, 100) as usize,
                "--lanes" => options.lanes = Some(number()? as usize),
                "--pace" => options.pace = number()?,
                "--round-kills" => options.round_kills = Some(number()?.max(1)),
                "--progress" => options.progress = number()?,
                "--backend" => {
                    options.posix = Some(match value.as_str() {
                        "posix" => true,
                        "sysv" => false,
                        _ => return Err(format!("--backend {value}: posix or sysv")),
                    });
                }
                "--wait" => {
                    options.wait = Some(match value.as_str() {
                        "block" => WaitStrategy::Block,
                        "adaptive" => WaitStrategy::Adaptive,
                        "yield" => WaitStrategy::Yield,
                        "spin" => WaitStrategy::Spin,
                        _ => return Err(format!("--wait {value}: block, adaptive, yield or spin")),
                    });
                }
                "--visits" => visits = number()?,
                "--address" => address = Some(value),
                "--crowd" => {
                    crowd = Some(match value.as_str() {
                        "producer" => true,
                        "consumer" => false,
                        _ => return Err(format!("--crowd {value}: producer or consumer")),
                    });
                }
                _ => return Err(format!("{option}: there is no such option")),
            }
        }
        if options
            .lanes
            .is_some_and(|lanes| !(options.producers..=240).contains(&lanes))
        {
            return Err(format!(
                "--lanes: from {} (one for each producer) to 240",
                options.producers
            ));
        }
        if let Some(producers) = crowd {
            options.crowd = Some(Crowd {
                producers,
                address: address.ok_or("--crowd needs an --address")?,
                visits,
            });
        }
        Ok(Some(options))
    }
}
