//! No file of the tree is so long that two ideas live in it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

const MAX_LINES: usize = 800;
/// Folders that are not ours, or not written by hand.
const SKIPPED_FOLDERS: [&str; 6] = [".git", ".tools", "target", "__pycache__", "schemas", "snapshots"];
const SKIPPED_FILES: [&str; 1] = ["Cargo.lock"];

pub(crate) fn run(root: &Path) -> Result<()> {
    let mut files = Vec::new();
    collect(root, &mut files)?;
    let mut longest = (0, PathBuf::new());
    let mut too_long = Vec::new();
    for file in &files {
        let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
        let shown = file.strip_prefix(root).unwrap_or(file).to_path_buf();
        if lines > MAX_LINES {
            too_long.push(format!("{} has {lines} lines, the limit is {MAX_LINES}: split it", shown.display()));
        }
        longest = longest.max((lines, shown));
    }
    if !too_long.is_empty() {
        bail!("{}", too_long.join("\n"));
    }
    println!("{} files, the longest is {} with {} lines", files.len(), longest.1.display(), longest.0);
    Ok(())
}

/// Every file beneath `folder` that is written by hand; links are not followed.
pub(crate) fn collect(folder: &Path, into: &mut Vec<PathBuf>) -> Result<()> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let kind = entry.file_type()?;
        if kind.is_dir() && !SKIPPED_FOLDERS.contains(&&*name) {
            collect(&entry.path(), into)?;
        } else if kind.is_file() && !SKIPPED_FILES.contains(&&*name) {
            into.push(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_file_is_found_unless_nobody_wrote_it() {
        let root = std::env::temp_dir().join(format!("xtask-tree-{}", std::process::id()));
        std::fs::create_dir_all(root.join("src/schemas")).unwrap();
        let (fine, long) = ("x\n".repeat(MAX_LINES), "x\n".repeat(MAX_LINES + 1));
        std::fs::write(root.join("src/schemas/generated.json"), &long).unwrap();
        std::fs::write(root.join("src/fine.rs"), &fine).unwrap();
        run(&root).unwrap();
        std::fs::write(root.join("src/long.rs"), &long).unwrap();
        let error = run(&root).unwrap_err().to_string();
        std::fs::remove_dir_all(&root).unwrap();
        assert_eq!(error, "src/long.rs has 801 lines, the limit is 800: split it");
    }
}
