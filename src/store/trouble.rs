//! What goes wrong between this store and its file, in the words of [`StoreError`].

use std::io::{self, ErrorKind};
use std::path::Path;

use rusqlite::ErrorCode;

use flowrun_engine::store::StoreError;

/// An error on its way to the caller, before it knows which file it is about.
#[derive(Debug)]
pub(super) enum Trouble {
    /// SQLite refused, and what the system's last error was at that moment: of failed reads and writes SQLite itself says no more
    /// than that they failed.
    Sqlite(rusqlite::Error, ErrorKind),
    /// Something was read that was never written.
    Damaged(String),
    /// Complete already.
    Store(StoreError),
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error, io::Error::last_os_error().kind())
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Trouble {
    /// Whether somebody else holds a lock for the moment.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self.code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
    }

    /// Whether a row is there already.
    pub(super) fn is_conflict(&self) -> bool {
        self.code() == Some(ErrorCode::ConstraintViolation)
    }

    fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Sqlite(error, _) => error.sqlite_error_code(),
            _ => None,
        }
    }

    /// The error of a file.
    pub(super) fn at(self, path: &Path) -> StoreError {
        let place = path.display().to_string();
        let (error, system) = match self {
            Self::Store(error) => return error,
            Self::Damaged(detail) => return StoreError::Damaged { place, detail },
            Self::Sqlite(error, system) => (error, system),
        };
        let detail = error.to_string();
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => StoreError::Full { place, detail },
            Some(ErrorCode::SystemIoFailure) if is_full(system) => {
                StoreError::Full { place, detail: format!("{detail}: {system}") }
            }
            Some(ErrorCode::SystemIoFailure) if is_closed(system) => {
                StoreError::ReadOnly { place, detail: format!("{detail}: {system}") }
            }
            Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
                StoreError::ReadOnly { place, detail }
            }
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Damaged { place, detail },
            Some(_) => StoreError::Medium { place, detail },
            // Not SQLite itself: a column that holds what no column of that name may hold.
            None => StoreError::Damaged { place, detail },
        }
    }
}

/// The error of a file or folder that the system refused.
pub(super) fn of_system(path: &Path, error: &io::Error) -> StoreError {
    let (place, detail) = (path.display().to_string(), error.to_string());
    match error.kind() {
        kind if is_full(kind) => StoreError::Full { place, detail },
        kind if is_closed(kind) => StoreError::ReadOnly { place, detail },
        _ => StoreError::Medium { place, detail },
    }
}

fn is_full(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
}

/// A file where a folder should be is as closed as a folder that may not be written.
fn is_closed(kind: ErrorKind) -> bool {
    use ErrorKind::{AlreadyExists, NotADirectory, PermissionDenied, ReadOnlyFilesystem};
    matches!(kind, AlreadyExists | NotADirectory | PermissionDenied | ReadOnlyFilesystem)
}
