//! The figures that are aimed at, and what was measured.

use serde_json::{Value, json};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    Lower,
    Higher,
}

pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) value: Option<f64>,
    pub(crate) limit: f64,
    pub(crate) better: Better,
    /// What a reader must know of it.
    pub(crate) note: &'static str,
}

impl Target {
    pub(crate) fn lower(name: &'static str, limit: f64, value: Option<f64>) -> Self {
        Self { name, value, limit, better: Better::Lower, note: "" }
    }

    pub(crate) fn higher(name: &'static str, limit: f64, value: Option<f64>) -> Self {
        Self { name, value, limit, better: Better::Higher, note: "" }
    }

    pub(crate) fn noted(self, note: &'static str) -> Self {
        Self { note, ..self }
    }

    /// What was not measured does not hold.
    pub(crate) fn holds(&self) -> bool {
        self.value.is_some_and(|value| match self.better {
            Better::Lower => value <= self.limit,
            Better::Higher => value >= self.limit,
        })
    }

    pub(crate) fn json(&self) -> Value {
        let better = if self.better == Better::Lower { "lower" } else { "higher" };
        let value = self.value.map(|value| round(value, 4));
        json!({"name": self.name, "value": value, "limit": self.limit, "better": better, "holds": self.holds(), "note": self.note})
    }
}

pub(crate) fn show(targets: &[Target]) {
    println!("{:<34} {:>9} {:>12}", "target", "value", "limit");
    for target in targets {
        let value = target.value.map_or("-".to_owned(), |value| format!("{value:.3}"));
        let sign = if target.better == Better::Lower { "<=" } else { ">=" };
        let said = match (target.value, target.holds()) {
            (None, _) => "not measured",
            (Some(_), true) => "holds",
            (Some(_), false) => "missed",
        };
        println!("{:<34} {value:>9} {:>12}  {said}", target.name, format!("{sign} {}", target.limit));
    }
}

pub(crate) fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.get(values.len().checked_sub(1)? / 2)?, values.get(values.len() / 2)?);
    Some(f64::midpoint(*low, *high))
}

/// The smallest value that 99 of a hundred do not exceed: of fewer than a hundred the worst.
pub(crate) fn p99(values: &[f64]) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get((values.len() * 99).div_ceil(100).checked_sub(1)?).copied()
}

pub(crate) fn round(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}
