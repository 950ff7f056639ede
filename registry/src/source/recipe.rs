//! How a plugin is built: as its manifest says, or as the files beside it suggest. Pure.

use std::path::{Component, Path, PathBuf};

use goplug_pconf_schema::Manifest;

use super::plan::words;

/// Where python's packages are put, beside the plugin.
const VENDOR: &str = "vendor";

/// What is run to build a plugin, in the folder of its sources, and what of it is kept besides its sources.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Recipe {
    /// A program and its arguments; empty: there is nothing to build.
    pub(super) command: Vec<String>,
    /// Files and folders, seen from the folder of its sources.
    pub(super) kept: Vec<PathBuf>,
}

/// How `manifest` wants to be built; `has` tells whether there is a file of that name beside it.
pub(super) fn recipe(manifest: &Manifest, has: impl Fn(&str) -> bool) -> Recipe {
    let detected = detect(manifest, has);
    let mut kept: Vec<_> = manifest.build.include.iter().map(|path| plain(Path::new(path))).collect();
    let command = match &manifest.build.command {
        Some(command) => command.clone(),
        None => {
            kept.extend(detected.kept);
            detected.command
        }
    };
    if command.is_empty() {
        return Recipe::default();
    }
    kept.extend(program(manifest));
    kept.dedup();
    Recipe { command, kept }
}

fn detect(manifest: &Manifest, has: impl Fn(&str) -> bool) -> Recipe {
    let recipe = |command: &[&str], kept: &[&str]| Recipe {
        command: words(command),
        kept: kept.iter().map(PathBuf::from).collect(),
    };
    if has("Cargo.toml") {
        // Without a lock file there is nothing that could be kept to.
        let all = ["cargo", "build", "--release", "--locked"];
        return recipe(if has("Cargo.lock") { &all } else { &all[..3] }, &[]);
    }
    if has("go.mod")
        && let Some(program) = program(manifest)
    {
        let program = format!("./{}", program.display());
        return recipe(&["go", "build", "-trimpath", "-buildvcs=false", "-o", &program, "."], &[]);
    }
    let node = ["--omit=dev", "--no-bin-links", "--no-audit", "--no-fund"];
    if has("package-lock.json") {
        return recipe(&[&["npm", "ci"][..], &node].concat(), &["node_modules"]);
    }
    if has("package.json") {
        return recipe(&[&["npm", "install"][..], &node].concat(), &["node_modules"]);
    }
    let pip = ["python3", "-m", "pip", "install", "--no-cache-dir", "--disable-pip-version-check", "--target", VENDOR];
    if has("requirements.txt") {
        return recipe(&[&pip[..], &["-r", "requirements.txt"]].concat(), &[VENDOR]);
    }
    if has("pyproject.toml") {
        return recipe(&[&pip[..], &["."]].concat(), &[VENDOR]);
    }
    Recipe::default()
}

/// The program, if it is a file of the plugin's folder.
fn program(manifest: &Manifest) -> Option<PathBuf> {
    let command = Path::new(&manifest.exec.command);
    (manifest.exec.command.contains('/') && command.is_relative()).then(|| plain(command))
}

/// Without `.`: paths of a manifest lead to something inside, and `a/../b` stays as it is.
fn plain(path: &Path) -> PathBuf {
    path.components().filter(|part| *part != Component::CurDir).collect()
}

#[cfg(test)]
mod tests {
    use goplug_pconf_schema::manifest::Folder;

    use super::*;

    fn told(build: &str, command: &str, files: &[&str]) -> (String, Vec<String>) {
        let text = format!(r#"{{"name":"do","version":"1.0.0","exec":{{"command":"{command}"}}{build}}}"#);
        let manifest = Manifest::parse(text.as_bytes(), Folder::default()).unwrap();
        let recipe = recipe(&manifest, |name| files.contains(&name));
        (recipe.command.join(" "), recipe.kept.iter().map(|path| path.display().to_string()).collect())
    }

    #[test]
    fn what_the_manifest_says_counts_and_else_what_is_there() {
        let include = r#","build":{"command":["make","all"],"include":["./share","out"]}"#;
        for (build, command, files, expected, kept) in [
            ("", "./run", &[][..], "", &[][..]),
            ("", "./run", &["README.md", "Makefile"], "", &[]),
            (
                "",
                "target/release/do",
                &["Cargo.toml", "Cargo.lock"],
                "cargo build --release --locked",
                &["target/release/do"],
            ),
            ("", "./do", &["Cargo.toml", "go.mod"], "cargo build --release", &["do"]),
            ("", "bin/do", &["go.mod"], "go build -trimpath -buildvcs=false -o ./bin/do .", &["bin/do"]),
            ("", "do", &["go.mod"], "", &[]),
            (
                "",
                "node",
                &["package.json", "package-lock.json"],
                "npm ci --omit=dev --no-bin-links --no-audit --no-fund",
                &["node_modules"],
            ),
            (
                "",
                "node",
                &["package.json"],
                "npm install --omit=dev --no-bin-links --no-audit --no-fund",
                &["node_modules"],
            ),
            (
                "",
                "python3",
                &["requirements.txt", "pyproject.toml"],
                "python3 -m pip install --no-cache-dir --disable-pip-version-check --target vendor -r requirements.txt",
                &["vendor"],
            ),
            (
                "",
                "python3",
                &["pyproject.toml"],
                "python3 -m pip install --no-cache-dir --disable-pip-version-check --target vendor .",
                &["vendor"],
            ),
            (include, "out/do", &["Cargo.toml"], "make all", &["share", "out", "out/do"]),
            (r#","build":{"command":[]}"#, "./do", &["Cargo.toml"], "", &[]),
            (r#","build":{"include":["share"]}"#, "./do", &["Cargo.toml"], "cargo build --release", &["share", "do"]),
        ] {
            let kept: Vec<_> = kept.iter().map(ToString::to_string).collect();
            assert_eq!(told(build, command, files), (expected.to_owned(), kept), "{build} {command} {files:?}");
        }
    }
}
