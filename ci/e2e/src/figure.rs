//! Figures of a benchmark, one JSON object a line, as `cargo xtask bench` reads them.

use serde_json::json;

/// Something that is measured, several times.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// What it is.
    pub name: &'static str,
    /// What it is counted in.
    pub unit: &'static str,
    /// The most it may be.
    pub budget: Option<f64>,
}

impl Figure {
    /// A figure without a budget.
    pub const fn new(name: &'static str, unit: &'static str) -> Figure {
        Figure { name, unit, budget: None }
    }

    /// With the most it may be.
    pub const fn budget(self, most: f64) -> Figure {
        Figure { budget: Some(most), ..self }
    }

    /// Prints what was measured.
    pub fn report(self, runs: &[f64]) {
        let Figure { name, unit, budget } = self;
        println!("{}", json!({ "name": name, "unit": unit, "budget": budget, "runs": runs }));
    }
}
