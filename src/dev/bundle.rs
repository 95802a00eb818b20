//! The example configuration and policies, carried in the binary, so that `stepgate demo` runs anywhere.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Path and content of each file.
const FILES: [(&str, &str); 6] = [
    ("config/dev.yaml", include_str!("../../config/dev.yaml")),
    ("config/emulator-account-key", include_str!("../../config/emulator-account-key")),
    ("policies/finance.yaml", include_str!("../../policies/finance.yaml")),
    ("policies/finance.test.yaml", include_str!("../../policies/finance.test.yaml")),
    ("policies/shop.yaml", include_str!("../../policies/shop.yaml")),
    ("policies/shop.test.yaml", include_str!("../../policies/shop.test.yaml")),
];

/// Writes the files below `directory`; gives the path of the configuration.
pub fn unpack(directory: &Path) -> io::Result<PathBuf> {
    for (path, content) in FILES {
        let path = directory.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, content)?;
    }
    Ok(directory.join("config/dev.yaml"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_policy_file_is_carried() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let there: BTreeSet<String> = fs::read_dir(root.join("policies"))
            .unwrap()
            .map(|entry| format!("policies/{}", entry.unwrap().file_name().to_str().unwrap()))
            .collect();
        let carried = FILES.iter().map(|(path, _)| (*path).to_owned()).filter(|path| path.starts_with("policies/"));
        assert_eq!(carried.collect::<BTreeSet<_>>(), there);
    }
}
