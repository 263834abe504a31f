//! Where the program `sensorium` is.

use std::path::{Path, PathBuf};

/// Where `cargo build --release` puts it, seen from the workspace.
const BUILT: &str = "target/release/sensorium";

/// No program was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotFound {
    /// What was said is no file.
    #[error("--sensorium {0}: there is no such file")]
    Said(PathBuf),
    /// It is in none of the usual places.
    #[error(
        "there is no sensorium beside {0} and no {BUILT}; build it with `cargo build --release`, or say --sensorium PATH"
    )]
    Nowhere(PathBuf),
}

/// Finds the program: as said, else beside the running executable, else where a release build puts it.
pub fn find(said: Option<PathBuf>) -> Result<PathBuf, NotFound> {
    let own = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("firmware-sim"));
    find_beside(said, &own)
}

fn find_beside(said: Option<PathBuf>, own: &Path) -> Result<PathBuf, NotFound> {
    if let Some(said) = said {
        return if said.is_file() { Ok(said) } else { Err(NotFound::Said(said)) };
    }
    let beside = own.with_file_name("sensorium");
    let built = PathBuf::from(BUILT);
    [beside, built].into_iter().find(|path| path.is_file()).ok_or_else(|| NotFound::Nowhere(own.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_as_said_or_beside_us_or_told_how_to_get() {
        let directory = tempfile::tempdir().unwrap();
        let own = directory.path().join("firmware-sim");
        let other = directory.path().join("other");
        assert_eq!(find_beside(Some(other.clone()), &own), Err(NotFound::Said(other)));
        let error = find_beside(None, &own).unwrap_err().to_string();
        assert!(error.contains("cargo build --release"), "{error}");
        let beside = directory.path().join("sensorium");
        std::fs::write(&beside, "").unwrap();
        assert_eq!(find_beside(None, &own), Ok(beside));
    }
}
