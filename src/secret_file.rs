//! Files with a secret, which only their owner may read.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// The longest secret, in bytes.
const MAX_BYTES: u64 = 4096;

/// A file with a secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretFileError {
    /// The file cannot be read.
    #[error("cannot read the secret {}: check that it exists and is readable", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    /// Other users can read the file.
    #[error("the secret {} has the mode {mode:04o}, so other users can use it: chmod 600 {}", path.display(), path.display())]
    Mode { path: PathBuf, mode: u32 },
}

/// Reads at most 4096 bytes and removes white space at both ends. Text that is not UTF-8 is empty.
pub(crate) fn read(path: &Path) -> Result<String, SecretFileError> {
    let unreadable = |source| SecretFileError::Unreadable { path: path.to_owned(), source };
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    let mode = metadata.mode() & 0o7777;
    if metadata.is_file() && mode & 0o077 != 0 {
        return Err(SecretFileError::Mode { path: path.to_owned(), mode });
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(str::from_utf8(&bytes).map(str::trim).unwrap_or_default().to_owned())
}
