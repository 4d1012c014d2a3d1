//! The place of addresses on the earth and in the internet: an own table of networks, then databases in the `MaxMind` DB
//! format. Both are files that may change while the balancer runs.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) mod database;
pub(crate) mod network;
pub(crate) mod place;
pub(crate) mod table;
#[cfg(test)]
mod tests;

pub(crate) use database::DatabaseError;
pub use database::GeoDatabase;
pub use place::GeoPlace;
pub use table::NetworkTable;
pub(crate) use table::TableError;

/// The largest file in bytes.
const LARGEST_FILE: u64 = 2 << 30;

/// The largest number of databases.
pub(crate) const MOST_DATABASES: usize = 16;

/// The knowledge about addresses.
#[derive(Debug, Clone, Default)]
pub struct Geography {
    /// The own table.
    pub table: Arc<NetworkTable>,
    /// The databases, in the order of their precedence.
    pub databases: Vec<Arc<GeoDatabase>>,
}

impl Geography {
    /// The place of an address according to the databases.
    #[must_use]
    #[inline]
    pub fn of_databases(&self, address: IpAddr) -> GeoPlace {
        let places = self.databases.iter().map(|database| database.find(address));
        places.reduce(|first, next| first.or(&next)).unwrap_or_default()
    }

    /// The place of an address.
    #[must_use]
    pub fn of(&self, address: IpAddr) -> GeoPlace {
        let own = self.table.find(address).map(|(_, place)| *place).unwrap_or_default();
        own.or(&self.of_databases(address))
    }
}

/// A file cannot be used. If an earlier state of it is in use, that one stays.
#[derive(Debug, thiserror::Error)]
pub enum GeographyError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// It is a folder, a pipe or a device, or larger than 2 GiB.
    #[error("cannot use {}: it is not a file of at most 2 GiB", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// It is not a usable database.
    #[error("{} is not a usable database in the MaxMind DB format", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: DatabaseError,
    },
    /// A line of the table of networks is invalid.
    #[error("the table of networks {} is not usable", path.display())]
    Table {
        /// The file.
        path: PathBuf,
        /// The line.
        source: TableError,
    },
}

/// The settings of a geography.
#[derive(Debug, Clone, Default)]
pub(crate) struct GeographySettings {
    /// The databases.
    pub(crate) databases: Vec<PathBuf>,
    /// The own table of networks.
    pub(crate) table: Option<PathBuf>,
    /// The multiple of the time on an idle server, or of its fair share, from which a near server is busy.
    pub(crate) spill_factor: u32,
}

impl GeographySettings {
    /// Whether there is no file.
    #[must_use]
    pub(crate) fn has_no_file(&self) -> bool {
        self.databases.is_empty() && self.table.is_none()
    }
}

/// The inode, the size and the time of a file; `None` if it is missing.
type FileState = Option<(u64, u64, i64, i64)>;

fn state(path: &Path) -> FileState {
    let file = fs::metadata(path).ok()?;
    Some((file.ino(), file.len(), file.mtime(), file.mtime_nsec()))
}

fn read(path: &Path) -> Result<Vec<u8>, GeographyError> {
    let unreadable = |source| GeographyError::Unreadable { path: path.to_owned(), source };
    // Opening a pipe would wait for its writer.
    let file = fs::metadata(path).map_err(unreadable)?;
    if !file.is_file() || file.len() > LARGEST_FILE {
        return Err(GeographyError::NotAFile { path: path.to_owned() });
    }
    let mut content = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(LARGEST_FILE).read_to_end(&mut content).map_err(unreadable)?;
    Ok(content)
}

fn read_database(path: &Path) -> Result<Arc<GeoDatabase>, GeographyError> {
    let database = GeoDatabase::parse(read(path)?);
    database.map(Arc::new).map_err(|source| GeographyError::Database { path: path.to_owned(), source })
}

fn read_table(path: &Path) -> Result<Arc<NetworkTable>, GeographyError> {
    let table = NetworkTable::parse(&read(path)?);
    table.map(Arc::new).map_err(|source| GeographyError::Table { path: path.to_owned(), source })
}

/// A file that is followed.
#[derive(Debug, Clone)]
struct FollowedFile {
    path: PathBuf,
    /// The state that was read.
    read: FileState,
    /// The latest state. A file is read once it has stopped changing.
    seen: FileState,
}

impl FollowedFile {
    fn new(path: &Path) -> Self {
        let state = state(path);
        Self { path: path.to_owned(), read: state, seen: state }
    }

    /// Whether the file must be read again.
    fn has_changed(&mut self) -> bool {
        let state = state(&self.path);
        let is_stable = std::mem::replace(&mut self.seen, state) == state;
        // A file that is missing for a moment is being replaced.
        if !is_stable || state.is_none() || state == self.read {
            return false;
        }
        self.read = state;
        true
    }
}

/// The files in use, and the knowledge from them.
#[derive(Debug, Clone)]
pub(crate) struct FollowedGeography {
    databases: Vec<FollowedFile>,
    table: Option<FollowedFile>,
    geography: Geography,
}

impl FollowedGeography {
    /// Reads all files.
    pub(crate) fn open(files: &GeographySettings) -> Result<Self, GeographyError> {
        // The state is taken first: a change while the file is read must not be missed.
        let databases = files.databases.iter().map(|path| FollowedFile::new(path)).collect();
        let table = files.table.as_deref().map(FollowedFile::new);
        let own = files.table.as_deref().map(read_table).transpose()?;
        let all: Result<_, _> = files.databases.iter().map(|path| read_database(path)).collect();
        let geography = Geography { table: own.unwrap_or_default(), databases: all? };
        Ok(Self { databases, table, geography })
    }

    /// The knowledge from the files in use.
    #[must_use]
    pub(crate) fn geography(&self) -> &Geography {
        &self.geography
    }

    /// The databases with their paths.
    pub(crate) fn databases(&self) -> impl Iterator<Item = (&Path, &GeoDatabase)> {
        self.databases.iter().map(|file| &*file.path).zip(self.geography.databases.iter().map(|it| &**it))
    }

    /// Leaves the present states of all files out of use.
    pub(crate) fn skip_changes(&mut self) {
        for file in self.databases.iter_mut().chain(&mut self.table) {
            *file = FollowedFile::new(&file.path);
        }
    }

    /// Reads the files that have changed and are stable since the last call. Returns whether one is in force, and the errors
    /// of the others.
    pub(crate) fn refresh(&mut self) -> (bool, Vec<GeographyError>) {
        let (mut is_changed, mut errors) = (false, Vec::new());
        let mut note = |result: Result<(), GeographyError>| match result {
            Ok(()) => is_changed = true,
            Err(error) => errors.push(error),
        };
        for (file, database) in self.databases.iter_mut().zip(&mut self.geography.databases) {
            if file.has_changed() {
                note(read_database(&file.path).map(|new| *database = new));
            }
        }
        if let Some(file) = &mut self.table
            && file.has_changed()
        {
            note(read_table(&file.path).map(|new| self.geography.table = new));
        }
        (is_changed, errors)
    }
}
