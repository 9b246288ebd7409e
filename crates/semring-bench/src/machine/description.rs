//! The properties of the machine that affect the figures.

use procfs::{CpuInfo, Current, LoadAverage};
use serde::Serialize;

use super::cgroup::cpu_limit;
use super::cpus::allowed;

/// Where and when a run was made.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// When the run began, in UTC (RFC 3339, to the second).
    pub date: String,
    /// Name of the host.
    pub host: String,
    /// Version of this crate, which is that of the rings.
    pub version: &'static str,
    /// The processor's model name.
    pub processor: String,
    /// CPUs that this process may use.
    pub cpus: usize,
    /// Release of the kernel.
    pub kernel: String,
    /// Whether it is a virtual machine.
    pub is_virtual: bool,
    /// The governor of the CPU clock (cpufreq). Absent where the host controls the clock.
    pub governor: Option<String>,
    /// The CPU of the process that measures, and that of the other one. Absent with one CPU.
    pub pinned: Option<[usize; 2]>,
    /// How many CPUs a control group lets this process use, if that is limited.
    pub cpu_limit: Option<f64>,
    /// Threads that wanted a CPU when the run began: the average over a minute.
    pub load: Option<f64>,
    /// Nanoseconds for one cache line to be written on one CPU, seen and answered on the other: median
    /// over the run. Absent with one CPU.
    pub line_round_trip_ns: Option<f64>,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let cpu = CpuInfo::current().ok();
        let model = cpu.as_ref().and_then(|cpu| cpu.model_name(0));
        let system = nix::sys::utsname::uname().ok();
        let name = |of: fn(&nix::sys::utsname::UtsName) -> &std::ffi::OsStr| {
            let name = system.as_ref().map(|system| of(system).to_string_lossy());
            name.map_or_else(|| "unknown".into(), |name| name.into_owned())
        };
        Self {
            date: humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string(),
            host: name(|system| system.nodename()),
            version: env!("CARGO_PKG_VERSION"),
            processor: model.unwrap_or("unknown processor").to_string(),
            cpus: allowed().map_or(1, |cpus| cpus.len()),
            kernel: name(|system| system.release()),
            is_virtual: cpu.as_ref().is_some_and(is_virtual),
            governor: governor(),
            pinned: None,
            cpu_limit: cpu_limit(),
            load: LoadAverage::current().ok().map(|load| f64::from(load.one)),
            line_round_trip_ns: None,
        }
    }

    /// Everything but the figures, in a line.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = format!(
            "{}, {} CPU{}, {}Linux {}",
            self.processor,
            self.cpus,
            if self.cpus == 1 { "" } else { "s" },
            if self.is_virtual { "virtual, " } else { "" },
            self.kernel,
        );
        if let Some(governor) = &self.governor {
            text.push_str(&format!(", governor {governor}"));
        }
        if let Some([own, peer]) = self.pinned {
            text.push_str(&format!(", pinned to CPUs {own} and {peer}"));
        }
        text
    }

    /// Which run this is: version, host and date, in a line.
    #[must_use]
    pub fn origin(&self) -> String {
        format!("semring {} on {}, {}", self.version, self.host, self.date)
    }
}

fn governor() -> Option<String> {
    let path = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor";
    Some(std::fs::read_to_string(path).ok()?.trim().to_string())
}

/// Whether the CPU reports a hypervisor.
fn is_virtual(cpu: &CpuInfo) -> bool {
    cpu.flags(0)
        .is_some_and(|flags| flags.contains(&"hypervisor"))
}

#[cfg(test)]
mod tests {
    use procfs::FromRead;

    use super::*;

    #[test]
    fn a_hypervisor_is_among_the_flags() {
        let virtual_by = |text: &str| {
            let cpu = CpuInfo::from_read(text.as_bytes()).expect("a CPU");
            is_virtual(&cpu)
        };
        assert!(virtual_by(
            "processor\t: 0\nflags\t\t: fpu hypervisor lm\n\n"
        ));
        assert!(!virtual_by(
            "processor\t: 0\nflags\t\t: fpu lm\nbugs\t\t: hypervisor\n\n"
        ));
    }

    #[test]
    fn a_description_names_version_host_and_date() {
        let machine = Machine::new();
        let origin = machine.origin();
        assert!(origin.starts_with(concat!("semring ", env!("CARGO_PKG_VERSION"), " on ")));
        assert!(humantime::parse_rfc3339(&machine.date).is_ok(), "{origin}");
        assert!(!machine.host.is_empty() && origin.contains(&machine.host));
    }
}
