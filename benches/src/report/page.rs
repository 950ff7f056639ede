//! The page of figures: `benchmarks.md`, and its plots.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};

use super::{Report, plot};

impl Report {
    /// Writes `benchmarks.md` and `benchmarks/*.svg` into `dir`, in the place of earlier ones.
    ///
    /// # Errors
    /// What cannot be written.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let plots = dir.join("benchmarks");
        std::fs::create_dir_all(&plots).with_context(|| format!("cannot make {}", plots.display()))?;
        let mut page = self.head();
        page.push_str(&self.list_of_notes());
        for (title, part) in [
            ("Many plugins", self.scale_page(&plots)?),
            ("Calls at a given rate", self.rates_page()),
            ("One plugin, called as fast as it answers", self.calls_page(&plots)?),
        ] {
            if !part.is_empty() {
                _ = write!(page, "\n## {title}\n\n{part}");
            }
        }
        write(&dir.join("benchmarks.md"), &page)
    }

    fn calls_page(&self, plots: &Path) -> Result<String> {
        let mut page = String::new();
        let mut cases: Vec<_> = self.rows.iter().map(|row| row.case).collect();
        cases.sort();
        cases.dedup();
        for case in cases {
            let name = format!("{case}.svg").replace(", ", "-").replace(' ', "-").to_lowercase();
            write(&plots.join(&name), &plot::plot(self, case))?;
            _ = writeln!(page, "![{case}](benchmarks/{name})\n");
        }
        page.push_str(self.calls_tables().trim_start());
        Ok(page)
    }

    fn rates_page(&self) -> String {
        if self.rates.is_empty() {
            return String::new();
        }
        format!("{}\n{}", super::fleet::RATES_TEXT, self.rate_tables().trim_start())
    }

    fn scale_page(&self, plots: &Path) -> Result<String> {
        if self.scale.is_empty() {
            return Ok(String::new());
        }
        let mut page = format!("{}{}.\n\n", super::fleet::SCALE_TEXT, self.scale_place());
        for (name, plot) in self.scale_plots() {
            write(&plots.join(format!("scale-{name}.svg")), &plot)?;
            _ = writeln!(page, "![{name} by number of plugins](benchmarks/scale-{name}.svg)\n");
        }
        page.push_str(&self.scale_table());
        Ok(page)
    }

    fn head(&self) -> String {
        let machine = &self.machine;
        let calls = self.rows.iter().map(|row| row.runs.len());
        let rounds = calls.chain(self.rates.iter().map(|row| row.runs.len()));
        let rounds = rounds.chain(self.scale.iter().map(|row| row.runs.len())).max().unwrap_or_default();
        let mut page = String::from("# Benchmarks\n\n");
        if self.quick {
            page.push_str("**Taken with `--quick`: to see that it works, not to cite.**\n\n");
        }
        if machine.cpus < 2 {
            page.push_str("**This machine gave us fewer than 2 cpus: two-core figures are missing.**\n\n");
        }
        _ = write!(
            page,
            "Written by `cargo xtask bench`; what the columns mean and how the figures are taken is in \
             [benches/README.md](../benches/README.md).\n\n\
             | | |\n|---|---|\n| Machine | {}, {} cpus, {} MiB |\n| Kernel | {} |\n| Date | {} |\n| Commit | {} |\n\
             | Command | `{}` |\n| Rounds | {rounds} |\n| Load before | {} |\n\n",
            machine.processor,
            machine.cpus,
            machine.memory_mib,
            machine.kernel,
            machine.date,
            self.commit,
            self.command,
            machine.load,
        );
        page
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
