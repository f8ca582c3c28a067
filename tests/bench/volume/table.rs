//! Workloads on arms, round by round.

use serde_json::{Value, json};

use super::arms::{Cell, Cells};
use super::load::Workload;
use super::targets::{median, round};

pub(crate) struct Table {
    works: &'static [Workload],
    arms: &'static [&'static str],
    pub(crate) cells: Cells,
}

impl Table {
    pub(crate) fn new(works: &'static [Workload], arms: &'static [&'static str]) -> Self {
        Self { works, arms, cells: Cells::new() }
    }

    pub(crate) fn of(&self, arm: &'static str, work: &'static str) -> &[Cell] {
        self.cells.get(&(arm, work)).map_or(&[], Vec::as_slice)
    }

    /// The median over the rounds of one arm's rate to another's: what is compared was measured within seconds.
    pub(crate) fn rate(&self, (arm, other): (&'static str, &'static str), work: &'static str) -> Option<f64> {
        let rounds = self.of(arm, work).iter().zip(self.of(other, work));
        median(rounds.map(|(ours, theirs)| ours.per_second / theirs.per_second))
    }

    pub(crate) fn median_cell(&self, arm: &'static str, work: &'static str) -> Option<Cell> {
        let of = |part: fn(&Cell) -> f64| median(self.of(arm, work).iter().map(part));
        Some(Cell {
            per_second: of(|cell| cell.per_second)?,
            p50_us: of(|cell| cell.p50_us)?,
            p99_us: of(|cell| cell.p99_us)?,
            cpu_us: of(|cell| cell.cpu_us)?,
            waited_us: median(self.of(arm, work).iter().filter_map(|cell| cell.waited_us)),
            memory_mib: of(|cell| cell.memory_mib)?,
        })
    }

    fn medians(&self) -> impl Iterator<Item = (&'static Workload, &'static str, Cell)> {
        let pairs = self.works.iter().flat_map(|work| self.arms.iter().map(move |arm| (work, *arm)));
        pairs.filter_map(|(work, arm)| Some((work, arm, self.median_cell(arm, work.name)?)))
    }

    /// `vs_floor`: where there is a floor, how far from it.
    pub(crate) fn show(&self, vs_floor: impl Fn(&'static str, &'static str) -> Option<f64>) {
        if self.cells.is_empty() {
            return;
        }
        println!(
            "{:<20} {:<15} {:>9} {:>9} {:>9} {:>10} {:>10} {:>7}  vs floor",
            "", "", "per s", "p50 us", "p99 us", "CPU us/op", "wait us/op", "MiB"
        );
        for (work, arm, cell) in self.medians() {
            let floor = vs_floor(arm, work.name).map_or(String::new(), |ratio| format!("{ratio:.2}"));
            let waited = cell.waited_us.map_or("-".to_owned(), |waited| format!("{waited:.1}"));
            let Cell { per_second, p50_us, p99_us, cpu_us, memory_mib, .. } = cell;
            println!(
                "{:<20} {arm:<15} {per_second:>9.0} {p50_us:>9.1} {p99_us:>9.1} {cpu_us:>10.1} {waited:>10} {memory_mib:>7.0}  {floor}",
                work.name
            );
        }
    }

    pub(crate) fn rows(&self, vs_floor: impl Fn(&'static str, &'static str) -> Option<f64>) -> Vec<Value> {
        let row = |(work, arm, cell): (&'static Workload, &'static str, Cell)| {
            let bytes = u32::try_from(work.bytes).expect("it is at most 1 MiB");
            json!({
                "name": format!("{}/{arm}", work.name), "workload": work.name, "arm": arm,
                "rounds": self.of(arm, work.name).len(),
                "per_s": round(cell.per_second, 1), "mib_s": round(cell.per_second * f64::from(bytes) / 1_048_576.0, 1),
                "p50_us": round(cell.p50_us, 1), "p99_us": round(cell.p99_us, 1),
                "cpu_us_per_operation": round(cell.cpu_us, 2),
                "waited_for_cpu_us_per_operation": cell.waited_us.map(|waited| round(waited, 2)), "memory_mib": round(cell.memory_mib, 1),
                "vs_floor": vs_floor(arm, work.name).map(|ratio| round(ratio, 3)),
            })
        };
        self.medians().map(row).collect()
    }
}
