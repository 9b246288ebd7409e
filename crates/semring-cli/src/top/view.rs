//! The live view: a table of rings, and below it the lanes of the one that is selected.

use std::io;
use std::time::{Duration, Instant};

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row, Table, TableState};
use semring::{LaneInfo, RingInfo, RingState};

use super::keys::{Wish, wait_for_keys};
use super::terminal::Taken;
use super::{Rates, Rhythm, Sample, Sampler};
use crate::exit::{self, Failure};
use crate::listing::{fullest_lane, share, waiting_producers};
use crate::signals::Signals;

/// How long a signal may go unnoticed.
const SLICE: Duration = Duration::from_millis(100);

/// Draws until a key, a signal, or the count of looks ends it. The terminal is as it was afterwards.
pub(super) fn run(rhythm: Rhythm) -> Result<u8, Failure> {
    let broken = |error: io::Error| Failure::run_time(format!("terminal: {error}"));
    let signals = Signals::catch().map_err(broken)?;
    let mut taken = Taken::new().map_err(broken)?;
    let shown = show(&mut taken, rhythm, &signals);
    if shown.is_err() {
        // The SIGHUP of a terminal that is gone comes at about the same time.
        signals.wait(SLICE);
    }
    let restored = taken.give_back();
    if let Some(signal) = signals.caught() {
        // A terminal that is gone can't be restored, and its SIGHUP is the whole message.
        return Err(Failure::by_signal(signal));
    }
    shown.and(restored).map_err(broken)?;
    Ok(exit::DONE)
}

/// Draws until it is to end; a signal ends it, too.
fn show(taken: &mut Taken, rhythm: Rhythm, signals: &Signals) -> io::Result<()> {
    let mut sampler = Sampler::default();
    let mut screen = Screen {
        samples: sampler.look(),
        selected: TableState::default().with_selected(0),
        interval: rhythm.interval,
        colours: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        help: false,
    };
    let mut looks = 1;
    let mut next = rhythm.next_after(Instant::now(), Instant::now());
    loop {
        taken.terminal.draw(|frame| screen.draw(frame))?;
        loop {
            if signals.caught().is_some() {
                return Ok(());
            }
            if taken.follow_job_control()? {
                taken.terminal.draw(|frame| screen.draw(frame))?;
            }
            Taken::check()?;
            let left = next.saturating_duration_since(Instant::now());
            if !Taken::is_in_foreground() {
                if left.is_zero() {
                    break;
                }
                std::thread::sleep(left.min(SLICE));
                continue;
            }
            // Keys are read also where no time is left: if a look takes longer than the interval, there
            // never is.
            let wishes = wait_for_keys(left.min(SLICE))?;
            if wishes.is_empty() {
                if left.is_zero() {
                    break;
                }
                continue;
            }
            for wish in wishes {
                match wish {
                    Wish::Quit => return Ok(()),
                    Wish::Stop => taken.stop_all()?,
                    Wish::Up => screen.selected.select_previous(),
                    Wish::Down => screen.selected.select_next(),
                    Wish::Help => screen.help = !screen.help,
                }
            }
            taken.terminal.draw(|frame| screen.draw(frame))?;
        }
        if rhythm.count.is_some_and(|count| looks >= count) {
            return Ok(());
        }
        screen.samples = sampler.look();
        looks += 1;
        next = rhythm.next_after(next, Instant::now());
    }
}

struct Screen {
    samples: Vec<Sample>,
    selected: TableState,
    interval: Duration,
    colours: bool,
    /// The columns and keys are explained in place of the lanes.
    help: bool,
}

/// A column of a table.
#[derive(Clone, Copy)]
struct Column {
    name: &'static str,
    /// 0: the width that the others leave.
    width: u16,
    /// A narrow terminal leaves out the column with the highest number first; 0 stays.
    rank: u8,
    is_text: bool,
}

const fn number(name: &'static str, width: u16, rank: u8) -> Column {
    Column {
        name,
        width,
        rank,
        is_text: false,
    }
}

const fn text(name: &'static str, width: u16, rank: u8) -> Column {
    Column {
        is_text: true,
        ..number(name, width, rank)
    }
}

const RING_COLUMNS: [Column; 9] = [
    text("RING", 0, 0),
    number("CONSUMER", 9, 3),
    number("PRODUCERS", 9, 4),
    number("SENT/s", 7, 0),
    number("READ/s", 7, 5),
    number("UNREAD", 8, 1),
    number("FULL", 4, 0),
    number("ASLEEP", 6, 2),
    number("DIED", 5, 6),
];

const LANE_COLUMNS: [Column; 8] = [
    number("LANE", 4, 0),
    number("PRODUCER", 9, 2),
    number("SENT/s", 7, 3),
    number("READ/s", 7, 5),
    number("UNREAD", 8, 1),
    text("USED", 0, 0),
    text("NOTE", 14, 0),
    number("DIED", 5, 4),
];

/// The minimum width of a lane's bar or a ring's name.
const LEAST_REST: u16 = 8;

/// A name that is longer than this is cut before a column is left out.
const LONGEST_NAME: u16 = 16;

const HELP: &str = "\
CONSUMER   its process id
PRODUCERS  attached ones / lanes
SENT/s     messages sent in a second
READ/s     messages released in a second
UNREAD     messages waiting in the ring
FULL       how full the fullest lane is
ASLEEP     C: the consumer sleeps;
           a number: the producers that
           sleep until there is room
DIED       producers that were killed

q, Esc     end
? h        this page and back
Up Down    choose the ring whose lanes
k j        are shown
Ctrl-Z     stop; fg continues
A narrow terminal has fewer columns.";

impl Screen {
    fn draw(&mut self, frame: &mut Frame<'_>) {
        let last = self.samples.len().saturating_sub(1);
        let selected = self.selected.selected().unwrap_or(0).min(last);
        self.selected.select(Some(selected));
        // The rings have what they need, but leave room for some lanes.
        let height = frame.area().height;
        if self.help {
            frame.render_widget(Paragraph::new(HELP), frame.area());
            return;
        }
        let wanted = u16::try_from(self.samples.len())
            .unwrap_or(u16::MAX)
            .saturating_add(1);
        let rings = wanted.min((height / 2).max(2));
        let [head, list, title, lanes, foot] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(rings),
            Constraint::Length(2),
            Constraint::Min(0),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        frame.render_widget(self.head(), head);
        frame.render_stateful_widget(self.rings(list.width), list, &mut self.selected);
        if let Some(sample) = self.samples.get(selected) {
            frame.render_widget(
                Paragraph::new(vec![Line::default(), title_of(sample)]),
                title,
            );
            frame.render_widget(self.lanes(sample, lanes.width), lanes);
        }
        let help = "q ends · ? explains · ↑ ↓ select";
        frame.render_widget(Paragraph::new(help).style(Modifier::DIM), foot);
    }

    fn head(&self) -> Paragraph<'static> {
        let rings = crate::units::count(self.samples.len() as u64, "ring");
        let every = humantime::format_duration(self.interval);
        let bold = Style::from(Modifier::BOLD);
        Paragraph::new(Line::from(vec![
            Span::styled("semring top", bold),
            Span::raw(format!("  {rings}, every {every}")),
        ]))
    }

    fn rings(&self, width: u16) -> Table<'static> {
        let addresses = self.samples.iter();
        let longest = addresses.map(|sample| sample.address().chars().count());
        let longest = u16::try_from(longest.max().unwrap_or(0)).unwrap_or(u16::MAX);
        let columns = fitting(
            &RING_COLUMNS,
            width,
            longest.clamp(LEAST_REST, LONGEST_NAME),
        );
        let room = width.saturating_sub(fixed(&columns));
        let rows = self.samples.iter().map(|sample| {
            let info = &sample.info;
            let lanes = sample.each_lane().count();
            let fullest = sample.rings().filter_map(fullest_lane);
            let used = fullest.fold(0.0_f64, |most, (_, share)| most.max(share));
            let [sent, received] = rates(&sample.rates);
            let consumer = match info.consumer_pid {
                Some(pid) => pid.to_string(),
                None if info.state == RingState::GuardMissing => "guard_missing".to_owned(),
                None => "-".to_owned(),
            };
            let cells = [
                Cell::new(sample.address()),
                right(consumer),
                right(format!("{}/{lanes}", sample.sum(RingInfo::producers))),
                right(sent),
                right(received),
                right(sample.sum(RingInfo::unread_messages).to_string()),
                right(percent(used)).style(self.tint(used)),
                right(asleep(sample)),
                right(sample.sum(RingInfo::died_producers).to_string()),
            ];
            row(cells, &RING_COLUMNS, &columns)
        });
        table(rows.collect(), &columns, longest.min(room).max(LEAST_REST))
            .row_highlight_style(Modifier::REVERSED)
    }

    fn lanes(&self, sample: &Sample, width: u16) -> Table<'static> {
        let columns = fitting(&LANE_COLUMNS, width, LEAST_REST);
        let bar = width.saturating_sub(fixed(&columns)).clamp(LEAST_REST, 65);
        let lanes = sample.each_lane().zip(&sample.lanes);
        let rows = lanes.map(|((number, lane), moved)| {
            let used = share(lane.used_bytes, sample.info.capacity_bytes);
            let [sent, received] = rates(moved);
            let cells = [
                right(number.to_string()),
                right(
                    lane.producer_pid
                        .map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
                ),
                right(sent),
                right(received),
                right(lane.unread_messages.to_string()),
                Cell::new(gauge(used, bar)).style(self.tint(used)),
                Cell::new(note(lane)).style(self.alarm(lane.corrupt_at.is_some())),
                right(lane.died_producers.to_string()),
            ];
            row(cells, &LANE_COLUMNS, &columns)
        });
        table(rows.collect(), &columns, bar)
    }

    /// Full is what to look at.
    fn tint(&self, share: f64) -> Style {
        match share {
            _ if !self.colours => Style::default(),
            0.9.. => Color::Red.into(),
            0.5.. => Color::Yellow.into(),
            _ => Color::Green.into(),
        }
    }

    fn alarm(&self, on: bool) -> Style {
        if on && self.colours {
            Color::Red.into()
        } else {
            Style::default()
        }
    }
}

fn title_of(sample: &Sample) -> Line<'static> {
    let info = &sample.info;
    let capacity = crate::units::human_bytes(info.capacity_bytes);
    let lanes = crate::units::count(sample.each_lane().count() as u64, "lane");
    let kind = match sample.second {
        Some(_) => "pair, ",
        None => "",
    };
    Line::from(vec![
        Span::styled(sample.address(), Modifier::BOLD),
        Span::raw(format!(
            "  {kind}{}, {lanes} of {capacity}, {} finished, {} died",
            info.state,
            sample.sum(RingInfo::finished_producers),
            sample.sum(RingInfo::died_producers)
        )),
    ])
}

/// Width of all columns except the one that takes the rest, and of the gaps.
fn fixed(columns: &[Column]) -> u16 {
    columns.iter().map(|column| column.width + 1).sum::<u16>() - 1
}

/// The columns that have room beside a rest of this width.
fn fitting(all: &[Column], width: u16, rest: u16) -> Vec<Column> {
    let mut columns = all.to_vec();
    while fixed(&columns) + rest > width {
        let last = columns.iter().map(|column| column.rank).max();
        let Some(last @ 1..) = last else { break };
        columns.retain(|column| column.rank != last);
    }
    columns
}

/// A row of the cells whose columns are shown.
fn row<const N: usize>(
    cells: [Cell<'static>; N],
    all: &[Column; N],
    shown: &[Column],
) -> Row<'static> {
    let cells = cells.into_iter().zip(all);
    Row::new(cells.filter_map(|(cell, column)| {
        let is_shown = shown.iter().any(|other| other.name == column.name);
        is_shown.then_some(cell)
    }))
}

fn table(rows: Vec<Row<'static>>, columns: &[Column], rest: u16) -> Table<'static> {
    let widths = columns.iter().map(|column| match column.width {
        0 => Constraint::Length(rest),
        width => Constraint::Length(width),
    });
    let heads = columns.iter().map(|column| {
        if column.is_text {
            Cell::new(column.name)
        } else {
            right(column.name.to_owned())
        }
    });
    let head = Row::new(heads).style(Modifier::BOLD);
    Table::new(rows, widths.collect::<Vec<_>>())
        .header(head)
        .column_spacing(1)
}

fn right(text: String) -> Cell<'static> {
    Cell::new(Line::from(text).right_aligned())
}

fn percent(share: f64) -> String {
    format!("{:.0}%", share * 100.0)
}

/// A bar of this many cells in all, followed by its number.
fn gauge(share: f64, width: u16) -> String {
    let cells = usize::from(width.saturating_sub(5));
    let full = (share * cells as f64).round() as usize;
    format!(
        "{}{} {:>4}",
        "█".repeat(full),
        "·".repeat(cells - full),
        percent(share)
    )
}

fn rates(rates: &Rates) -> [String; 2] {
    [rates.sent_per_second, rates.received_per_second]
        .map(|rate| rate.map_or_else(|| "-".to_owned(), human_rate))
}

/// At most four digits and a 1000-based unit.
fn human_rate(rate: f64) -> String {
    let (value, unit) = match rate {
        ..999.5 => return format!("{rate:.0}"),
        ..999.5e3 => (rate / 1e3, "k"),
        ..999.5e6 => (rate / 1e6, "M"),
        _ => (rate / 1e9, "G"),
    };
    let digits = usize::from(value < 99.95);
    format!("{value:.digits$}{unit}")
}

fn asleep(sample: &Sample) -> String {
    match (sample.consumer_sleeps(), sample.sum(waiting_producers)) {
        (false, 0) => "-".to_owned(),
        (true, 0) => "C".to_owned(),
        (false, producers) => producers.to_string(),
        (true, producers) => format!("C {producers}"),
    }
}

fn note(lane: &LaneInfo) -> String {
    match lane.corrupt_at {
        Some(position) => format!("damaged {position}"),
        None if lane.producer_sleeps => "waits for room".to_owned(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    /// The lines on a terminal of this size.
    fn drawn(screen: &mut Screen, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| screen.draw(frame)).unwrap();
        let buffer = terminal.backend().buffer();
        let rows = buffer.content().chunks(usize::from(width));
        rows.map(|row| {
            let line: String = row.iter().map(ratatui::buffer::Cell::symbol).collect();
            line.trim_end().to_owned()
        })
        .collect()
    }

    fn screen(samples: Vec<Sample>) -> Screen {
        Screen {
            samples,
            selected: TableState::default(),
            interval: Duration::from_secs(1),
            colours: false,
            help: false,
        }
    }

    #[test]
    fn a_ring_and_its_lanes_are_shown_at_any_size() {
        let name = format!("v-{:07}", std::process::id());
        let ring = semring::mpsc::Builder::new(&name)
            .producers(3)
            .create()
            .unwrap();
        let mut producer = ring.attach_producer().unwrap();
        producer.send(&[0; 60_000]).unwrap();
        let mut sampler = Sampler::default();
        let mut look = || sampler.compare(vec![ring.info().unwrap()], Instant::now());
        look();
        let mut screen = screen(look());
        for (width, height) in [(80, 24), (200, 50), (20, 5), (1, 1)] {
            drawn(&mut screen, width, height);
        }
        let lines = drawn(&mut screen, 80, 24);
        let narrow = drawn(&mut screen, 40, 24);
        screen.help = true;
        let help = drawn(&mut screen, 40, 24);
        drop(producer);
        ring.remove().unwrap();
        let row = lines.iter().find(|line| line.contains(&name)).unwrap();
        let cells: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(
            cells[1..],
            ["-", "1/3", "0", "0", "1", "23%", "-", "0"],
            "{lines:#?}"
        );
        let pid = std::process::id().to_string();
        let lane = lines
            .iter()
            .find(|line| line.contains(&pid) && line.contains('█'));
        assert!(lane.is_some_and(|line| line.contains("23%")), "{lines:#?}");
        assert!(lines.last().is_some_and(|line| line.starts_with("q ends")));
        // Whole columns, and the name of the ring as it is.
        let heads: Vec<&str> = narrow[1].split_whitespace().collect();
        assert_eq!(heads, ["RING", "SENT/s", "UNREAD", "FULL"], "{narrow:#?}");
        let row: Vec<&str> = narrow[2].split_whitespace().collect();
        assert_eq!(row[1..], ["0", "1", "23%"], "{narrow:#?}");
        assert!(row[0].ends_with(&name), "{narrow:#?}");
        let heads: Vec<&str> = narrow[5].split_whitespace().collect();
        assert_eq!(heads, ["LANE", "UNREAD", "USED", "NOTE"], "{narrow:#?}");
        for column in RING_COLUMNS {
            let is_explained = |line: &String| line.starts_with(column.name);
            assert!(
                column.name == "RING" || help.iter().any(is_explained),
                "{help:#?}"
            );
        }
        assert!(help.iter().any(|line| line.ends_with("fewer columns.")));
    }

    #[test]
    fn without_rings_there_is_still_a_screen() {
        let lines = drawn(&mut screen(Vec::new()), 80, 24);
        assert!(lines[0].contains("0 rings, every 1s"), "{lines:#?}");
    }

    #[test]
    fn rates_are_short() {
        for (rate, text) in [
            (0.0, "0"),
            (999.4, "999"),
            (999.6, "1.0k"),
            (99_940.0, "99.9k"),
            (138_000_000.0, "138M"),
            (4.2e9, "4.2G"),
        ] {
            assert_eq!(human_rate(rate), text);
        }
    }

    #[test]
    fn bars_are_as_long_as_they_may_be() {
        for width in 0..200 {
            for share in [0.0, 0.004, 0.5, 1.0] {
                let text = gauge(share, width);
                assert!(text.chars().count() <= usize::from(width).max(5), "{text}");
            }
        }
        assert!(gauge(1.0, 15).starts_with(&"█".repeat(10)));
    }
}
