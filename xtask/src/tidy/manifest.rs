//! Checks of one package's manifest: what every package inherits from the workspace.

use super::Finding;

/// The keys of `[package]` that are the workspace's.
const INHERITED: [&str; 4] = ["version", "edition", "rust-version", "license"];

/// All findings in the manifest called `name`.
pub(crate) fn check(name: &str, text: &str) -> Vec<Finding> {
    let lines: Vec<String> = text.lines().map(|line| line.replace(' ', "")).collect();
    let mut findings = Vec::new();
    for key in INHERITED {
        let forms = [
            format!("{key}.workspace=true"),
            format!("{key}={{workspace=true}}"),
        ];
        if !lines.iter().any(|line| forms.contains(line)) {
            findings.push(Finding::new(
                name,
                0,
                format!("`{key}` is inherited from the workspace"),
            ));
        }
    }
    let inherits_lints = lines
        .windows(2)
        .any(|pair| pair[0] == "[lints]" && pair[1] == "workspace=true");
    if !inherits_lints {
        findings.push(Finding::new(
            name,
            0,
            "the lint table is inherited from the workspace",
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "[package]\nname = \"a\"\nversion.workspace = true\nedition = { workspace = true }\n\
                        rust-version.workspace = true\nlicense.workspace = true\n\n[lints]\nworkspace = true\n";

    #[test]
    fn what_is_not_inherited_is_found() {
        assert_eq!(check("Cargo.toml", GOOD), []);
        let own = GOOD.replace("edition = { workspace = true }", "edition = \"2024\"");
        assert_eq!(check("Cargo.toml", &own).len(), 1);
        let bare = GOOD.replace("[lints]\nworkspace = true\n", "");
        assert_eq!(check("Cargo.toml", &bare).len(), 1);
    }
}
