//! Times, spans and bars, as people read them.

use chrono::{DateTime, TimeDelta, Utc};

use crate::answer::{Counts, Text};
use crate::node::answer::Resync;

/// A moment to the second, in UTC as everything the daemon logs: "2026-11-03 03:12:44Z".
pub(crate) fn when(text: &Text) -> String {
    formatted(text, "%Y-%m-%d %H:%M:%SZ")
}

/// A moment to the millisecond.
pub(crate) fn precisely(text: &Text) -> String {
    formatted(text, "%Y-%m-%d %H:%M:%S%.3fZ")
}

/// What is no moment is shown as it is.
fn formatted(text: &Text, format: &str) -> String {
    text.at().map_or_else(|| text.to_string(), |at| at.format(format).to_string())
}

/// How long ago; the clocks of two machines may differ, so never less than nothing.
pub(crate) fn since(text: &Text, now: DateTime<Utc>) -> Option<String> {
    text.at().map(|at| lasted((now - at).max(TimeDelta::zero())))
}

/// Seconds after `start`: "+12.4 s".
pub(crate) fn offset(text: &Text, start: &Text) -> String {
    match (text.at(), start.at()) {
        (Some(at), Some(start)) => format!("{:+.1} s", seconds(at - start)),
        _ => String::new(),
    }
}

/// Two units at most: "8.2 s", "3 min 20 s", "2 h 5 min", "3 d 4 h".
pub(crate) fn lasted(span: TimeDelta) -> String {
    let whole = span.num_seconds();
    match whole {
        ..60 => format!("{:.1} s", seconds(span)),
        60..3_600 => format!("{} min {} s", whole / 60, whole % 60),
        3_600..86_400 => format!("{} h {} min", whole / 3_600, whole % 3_600 / 60),
        86_400.. => format!("{} d {} h", whole / 86_400, whole % 86_400 / 3_600),
    }
}

fn seconds(span: TimeDelta) -> f64 {
    span.as_seconds_f64()
}

/// `[####>>..]`: # moved or running again, ! named, > moving or asked to start, . waiting. The unsettled is never drawn as settled.
pub(crate) fn bar(counts: Counts, width: u64) -> String {
    let Counts { total, moved, moving, named, running, asked, waiting: _ } = counts;
    let (moved, moving) = (moved.saturating_add(running.unwrap_or(0)), moving.saturating_add(asked));
    if total == 0 {
        return format!("[{}]", " ".repeat(cells(width)));
    }
    let upto = |count: u64| {
        cells(u64::try_from(u128::from(count.min(total)) * u128::from(width) / u128::from(total)).unwrap_or(width))
    };
    let (a, b, c) = (moved, moved.saturating_add(named), moved.saturating_add(named).saturating_add(moving));
    let (a, b, c) = (upto(a), upto(b), upto(c));
    format!("[{}{}{}{}]", "#".repeat(a), "!".repeat(b - a), ">".repeat(c - b), ".".repeat(cells(width) - c))
}

fn cells(width: u64) -> usize {
    usize::try_from(width).unwrap_or(0)
}

/// "5 of 12 moved, 2 moving, 4 waiting, 1 named", or "5 of 12 run again, ..." after a reboot; what is none is left out.
pub(crate) fn counts(counts: Counts) -> String {
    if counts.total == 0 {
        return "no instances".to_owned();
    }
    let Counts { total, moved, moving, waiting, named, running, asked } = counts;
    let rest = [(moving, "moving"), (asked, "asked to start"), (waiting, "waiting"), (named, "named")];
    let rest = rest.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!(", {count} {word}"));
    let done = match running {
        Some(running) => format!("{running} of {total} run again"),
        None => format!("{moved} of {total} moved"),
    };
    done + &rest.collect::<String>()
}

/// "10 GiB", "1.5 TiB"; whole numbers without a point.
pub(crate) fn amount(bytes: Option<u64>) -> String {
    const UNITS: [(u64, &str); 4] = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let Some(bytes) = bytes else { return "-".to_owned() };
    match UNITS.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, word)) => match tenths(bytes, *unit) {
            (whole, 0) => format!("{whole} {word}"),
            (whole, tenth) => format!("{whole}.{tenth} {word}"),
        },
        None => format!("{bytes} B"),
    }
}

/// Cut, never rounded up: what is not all there does not look as if it were.
fn tenths(part: u64, whole: u64) -> (u128, u128) {
    let tenths = u128::from(part) * 10 / u128::from(whole.max(1));
    (tenths / 10, tenths % 10)
}

/// How far a copy is: "43.1 % 112 MiB/s, 2 min left".
pub(crate) fn in_short(resync: Resync) -> String {
    let (whole, tenth) = match resync.total_bytes {
        0 => (100, 0),
        total => {
            let thousandths = u128::from(resync.done_bytes()) * 1000 / u128::from(total);
            (thousandths / 10, thousandths % 10)
        }
    };
    let rate = resync.bytes_per_s.map_or_else(String::new, |rate| format!(" {}/s", amount(Some(rate))));
    let left = resync.eta_s.map_or_else(String::new, |left| format!(", {} left", roughly(left)));
    format!("{whole}.{tenth} %{rate}{left}")
}

/// What nobody knows to the second is not said to the second.
fn roughly(seconds: u64) -> String {
    match seconds {
        ..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds.div_ceil(60)),
        3_600..172_800 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        172_800.. => format!("{} d", seconds / 86_400),
    }
}

/// `[#####.....]`.
pub(crate) fn progress(done: u64, total: u64, width: u64) -> String {
    let filled = match total {
        0 => width,
        total => u64::try_from(u128::from(done.min(total)) * u128::from(width) / u128::from(total)).unwrap_or(width),
    };
    format!("[{}{}]", "#".repeat(cells(filled)), ".".repeat(cells(width - filled)))
}

/// "cmp1, cmp2"; nothing where there are none.
pub(crate) fn names(names: &[Text]) -> Option<String> {
    let names: Vec<_> = names.iter().map(Text::to_string).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_full_only_when_all_are_settled() {
        let of = |total, moved, moving, named| bar(Counts { total, moved, moving, named, ..Counts::default() }, 10);
        assert_eq!(of(12, 0, 0, 0), "[..........]");
        assert_eq!(of(10, 3, 2, 1), "[###!>>....]");
        assert_eq!(of(1000, 999, 0, 0), "[#########.]");
        assert_eq!(of(12, 11, 0, 1), "[#########!]");
        assert_eq!(of(3, u64::MAX, u64::MAX, u64::MAX), "[##########]");
        assert_eq!(of(0, 0, 0, 0), "[          ]");
        let rebooted = Counts { total: 4, running: Some(1), asked: 1, named: 1, waiting: 1, ..Counts::default() };
        assert_eq!(bar(rebooted, 8), "[##!!>>..]");
    }

    #[test]
    fn spans_have_two_units_at_most() {
        let of = |milliseconds| lasted(TimeDelta::milliseconds(milliseconds));
        assert_eq!(of(8_240), "8.2 s");
        assert_eq!(of(200_000), "3 min 20 s");
        assert_eq!(of(7_500_000), "2 h 5 min");
        assert_eq!(of(273_600_000), "3 d 4 h");
    }

    #[test]
    fn what_is_not_all_there_is_never_100_percent() {
        let of = |left_bytes, eta_s| {
            in_short(Resync { left_bytes, total_bytes: 10 << 30, bytes_per_s: Some(112 << 20), eta_s })
        };
        assert_eq!(of(1, Some(0)), "99.9 % 112 MiB/s, 0 s left");
        assert_eq!(of(6_109_471_000, Some(61)), "43.1 % 112 MiB/s, 2 min left");
        assert_eq!(of(10 << 30, None), "0.0 % 112 MiB/s");
        assert_eq!(of(u64::MAX, Some(u64::MAX)), "0.0 % 112 MiB/s, 213503982334601 d left");
        assert_eq!(progress(9, 10, 4), "[###.]");
        assert_eq!(progress(u64::MAX, 10, 4), "[####]");
    }

    #[test]
    fn amounts_are_of_1024_and_cut() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            ((10 << 30) - 1, "9.9 GiB"),
            (10 << 30, "10 GiB"),
            (3 << 39, "1.5 TiB"),
            (u64::MAX, "16777215.9 TiB"),
        ] {
            assert_eq!(amount(Some(bytes)), text);
        }
    }
}
