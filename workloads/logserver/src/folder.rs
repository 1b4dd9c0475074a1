//! The data folder: which files are segments, how they are written whole, and that one server uses it alone.
//! Knows names and files, not what records mean.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use crate::segment::{self, Header};

const OPEN: &str = "open";
const SEALED: &str = "sealed";
const UNFINISHED: &str = "unfinished";
const DAMAGED: &str = "damaged";

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// An operation on a file failed.
    #[error("cannot {0} {1}: {2}")]
    File(&'static str, PathBuf, io::Error),
    /// Another server has it.
    #[error("another logserver uses {0}: give each its own folder")]
    InUse(PathBuf),
}

/// The data folder, locked for this process.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    _lock: File,
}

/// What a folder holds, by segment number in order.
#[derive(Debug, Default)]
pub struct Found {
    /// Sealed segments with their headers and sizes in bytes.
    pub sealed: Vec<(u64, Header, u64)>,
    /// Segments that were being written.
    pub open: Vec<u64>,
    /// Segments whose header is damaged; they were set aside.
    pub damaged: u64,
}

impl Folder {
    /// Makes the folder if it is not there, and locks it.
    ///
    /// # Errors
    /// When it cannot be written to, or another process has it.
    pub fn lock(path: &Path) -> Result<Folder, FolderError> {
        fs::create_dir_all(path).map_err(|e| FolderError::File("make", path.into(), e))?;
        let lock = path.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock)
            .map_err(|e| FolderError::File("write", lock.clone(), e))?;
        match file.try_lock() {
            Ok(()) => Ok(Folder { path: path.to_owned(), _lock: file }),
            Err(TryLockError::WouldBlock) => Err(FolderError::InUse(path.into())),
            Err(TryLockError::Error(e)) => Err(FolderError::File("lock", lock, e)),
        }
    }

    /// Finds the segments, and removes what a crash left half done.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn find(&self) -> Result<Found, FolderError> {
        let mut found = Found::default();
        let entries =
            fs::read_dir(&self.path).map_err(|e| FolderError::File("list", self.path.clone(), e))?;
        for entry in entries {
            let path = entry.map_err(|e| FolderError::File("list", self.path.clone(), e))?.path();
            let Some((id, kind)) = parse(&path) else { continue };
            match kind {
                OPEN => found.open.push(id),
                UNFINISHED => remove(&path)?,
                SEALED => match read_header(&path) {
                    Ok((header, bytes)) => found.sealed.push((id, header, bytes)),
                    Err(error) => {
                        tracing::error!(path = %path.display(), %error, "segment cannot be read and is set aside");
                        self.set_aside(id)?;
                        found.damaged += 1;
                    }
                },
                _ => {}
            }
        }
        found.sealed.sort_by_key(|(id, ..)| *id);
        found.open.sort_unstable();
        // A segment is sealed whole before its open file goes; a crash in between leaves both.
        let sealed: Vec<u64> = found.sealed.iter().map(|(id, ..)| *id).collect();
        for id in found.open.extract_if(.., |id| sealed.binary_search(id).is_ok()) {
            remove(&self.file(id, OPEN))?;
        }
        Ok(found)
    }

    /// Opens the segment being written, made if it is not there, and reads what it holds.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn open(&self, id: u64) -> Result<(File, Vec<u8>), FolderError> {
        let path = self.file(id, OPEN);
        let mut bytes = Vec::new();
        let file = OpenOptions::new().create(true).read(true).append(true).open(&path);
        let file = file
            .and_then(|mut file| file.read_to_end(&mut bytes).map(|_| file))
            .map_err(|e| FolderError::File("open", path, e))?;
        Ok((file, bytes))
    }

    /// Puts a sealed segment in the place of the one that was written. Whole or not at all, whatever crashes.
    ///
    /// # Errors
    /// When it cannot be written; the open segment is untouched then.
    pub fn seal(&self, id: u64, bytes: &[u8]) -> Result<(), FolderError> {
        let (unfinished, sealed) = (self.file(id, UNFINISHED), self.file(id, SEALED));
        let write = || {
            let mut file = File::create(&unfinished)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&unfinished, &sealed)?;
            File::open(&self.path)?.sync_all()
        };
        write().map_err(|e| FolderError::File("seal", sealed.clone(), e))?;
        remove(&self.file(id, OPEN))
    }

    /// Removes a segment that was being written.
    ///
    /// # Errors
    /// When it is there and cannot be removed.
    pub fn discard(&self, id: u64) -> Result<(), FolderError> {
        remove(&self.file(id, OPEN))
    }

    /// The bytes of a sealed segment; none when it has gone meanwhile.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self, id: u64) -> Result<Option<Vec<u8>>, FolderError> {
        let path = self.file(id, SEALED);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(FolderError::File("read", path, e)),
        }
    }

    /// Removes a sealed segment.
    ///
    /// # Errors
    /// When it is there and cannot be removed.
    pub fn remove(&self, id: u64) -> Result<(), FolderError> {
        remove(&self.file(id, SEALED))
    }

    fn set_aside(&self, id: u64) -> Result<(), FolderError> {
        let path = self.file(id, SEALED);
        fs::rename(&path, self.file(id, DAMAGED)).map_err(|e| FolderError::File("set aside", path, e))
    }

    fn file(&self, id: u64, kind: &str) -> PathBuf {
        self.path.join(format!("{id:012}.{kind}"))
    }
}

fn parse(path: &Path) -> Option<(u64, &str)> {
    Some((path.file_stem()?.to_str()?.parse().ok()?, path.extension()?.to_str()?))
}

fn remove(path: &Path) -> Result<(), FolderError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(FolderError::File("remove", path.into(), e)),
        _ => Ok(()),
    }
}

fn read_header(path: &Path) -> io::Result<(Header, u64)> {
    let wrong = |e| io::Error::new(ErrorKind::InvalidData, e);
    let mut file = File::open(path)?;
    let bytes = file.metadata()?.len();
    let mut prefix = [0; segment::PREFIX];
    file.read_exact(&mut prefix)?;
    let range = segment::header_range(&prefix).map_err(wrong)?;
    let mut header = vec![0; range.count()];
    file.read_exact(&mut header)?;
    Ok((segment::read_header(&header).map_err(wrong)?, bytes))
}
