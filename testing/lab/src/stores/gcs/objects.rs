//! The objects of the fake, and uploads in parts: plain data.
//!
//! Guarantees that a generation is given once. Leaves locking to its owner: each call is one step.

use std::collections::BTreeMap;
use std::time::SystemTime;

use bytes::Bytes;

/// The least that a part may have, unless it is the last one.
const PART_BYTES_MIN: usize = 5 * 1024 * 1024;

/// An object of the fake: its bytes and what it tells of them.
#[derive(Clone, Debug)]
pub(super) struct Object {
    pub(super) data: Bytes,
    pub(super) generation: u64,
    pub(super) modified: SystemTime,
    /// Headers that the writer wants kept: names and values.
    pub(super) metadata: Vec<(String, String)>,
}

impl Object {
    /// Its entity tag, with quotes.
    pub(super) fn etag(&self) -> String {
        etag_of(&self.data)
    }
}

/// Why something was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The generation is not the one that was required.
    Precondition,
    NoSuchKey,
    NoSuchUpload,
    /// A part is missing, or has another tag.
    InvalidPart,
    /// A part that is not the last one has less than 5 MiB.
    EntityTooSmall,
}

/// All objects of a bucket, and uploads in parts that have not ended.
#[derive(Default)]
pub(super) struct Objects {
    objects: BTreeMap<String, Object>,
    uploads: BTreeMap<String, Upload>,
    last: u64,
}

struct Upload {
    key: String,
    begun: SystemTime,
    parts: BTreeMap<u32, Bytes>,
}

impl Objects {
    pub(super) fn get(&self, key: &str) -> Result<&Object, Refused> {
        self.objects.get(key).ok_or(Refused::NoSuchKey)
    }

    /// Objects behind `after` that begin with `prefix`.
    pub(super) fn list(&self, prefix: &str, after: &str) -> impl Iterator<Item = (&str, &Object)> {
        self.objects
            .iter()
            .filter(move |(key, _)| key.starts_with(prefix) && key.as_str() > after)
            .map(|(key, object)| (key.as_str(), object))
    }

    /// Stores an object if it has the required generation; 0 is that of an object that is not there.
    pub(super) fn put(
        &mut self,
        key: &str,
        data: Bytes,
        metadata: Vec<(String, String)>,
        required: Option<u64>,
    ) -> Result<Object, Refused> {
        self.require(key, required)?;
        self.last += 1;
        let object = Object {
            data,
            generation: self.last,
            modified: SystemTime::now(),
            metadata,
        };
        self.objects.insert(key.to_owned(), object.clone());
        Ok(object)
    }

    pub(super) fn delete(&mut self, key: &str, required: Option<u64>) -> Result<(), Refused> {
        self.require(key, required)?;
        self.objects.remove(key).ok_or(Refused::NoSuchKey)?;
        Ok(())
    }

    fn require(&self, key: &str, required: Option<u64>) -> Result<(), Refused> {
        let there = self.objects.get(key).map_or(0, |object| object.generation);
        match required {
            Some(required) if required != there => Err(Refused::Precondition),
            _ => Ok(()),
        }
    }

    /// Begins an upload in parts; its name.
    pub(super) fn begin(&mut self, key: &str) -> String {
        self.last += 1;
        let id = format!("upload-{}", self.last);
        let upload = Upload {
            key: key.to_owned(),
            begun: SystemTime::now(),
            parts: BTreeMap::new(),
        };
        self.uploads.insert(id.clone(), upload);
        id
    }

    /// Takes a part; its tag.
    pub(super) fn part(
        &mut self,
        id: &str,
        key: &str,
        number: u32,
        data: Bytes,
    ) -> Result<String, Refused> {
        let etag = etag_of(&data);
        self.upload(id, key)?.parts.insert(number, data);
        Ok(etag)
    }

    /// Makes an object of these parts, if it has the required generation. A refused upload stays unfinished.
    pub(super) fn complete(
        &mut self,
        id: &str,
        key: &str,
        parts: &[(u32, String)],
        required: Option<u64>,
    ) -> Result<Object, Refused> {
        let upload = self.upload(id, key)?;
        let mut whole = Vec::new();
        for (place, (number, etag)) in parts.iter().enumerate() {
            let part = upload.parts.get(number).ok_or(Refused::InvalidPart)?;
            if etag.trim_matches('"') != etag_of(part).trim_matches('"') {
                return Err(Refused::InvalidPart);
            }
            if place + 1 < parts.len() && part.len() < PART_BYTES_MIN {
                return Err(Refused::EntityTooSmall);
            }
            whole.extend_from_slice(part);
        }
        let object = self.put(key, whole.into(), Vec::new(), required)?;
        self.uploads.remove(id);
        Ok(object)
    }

    pub(super) fn abort(&mut self, id: &str, key: &str) -> Result<(), Refused> {
        self.upload(id, key)?;
        self.uploads.remove(id);
        Ok(())
    }

    fn upload(&mut self, id: &str, key: &str) -> Result<&mut Upload, Refused> {
        let upload = self.uploads.get_mut(id).filter(|upload| upload.key == key);
        upload.ok_or(Refused::NoSuchUpload)
    }

    pub(super) fn sizes(&self) -> Vec<(String, u64)> {
        let sizes = self.objects.iter();
        sizes
            .map(|(key, object)| (key.clone(), object.data.len() as u64))
            .collect()
    }

    pub(super) fn unfinished(&self) -> Vec<String> {
        let keys = self.uploads.values().map(|upload| upload.key.clone());
        let mut keys: Vec<String> = keys.collect();
        keys.sort();
        keys
    }

    /// Uploads that are neither finished nor given up: key and name, and when they were begun; sorted.
    pub(super) fn uploads(&self) -> Vec<(&str, &str, SystemTime)> {
        let uploads = self.uploads.iter();
        let listed = uploads.map(|(id, upload)| (upload.key.as_str(), id.as_str(), upload.begun));
        let mut listed: Vec<_> = listed.collect();
        listed.sort_unstable();
        listed
    }
}

/// FNV-1a over the contents: enough to tell parts apart.
fn etag_of(data: &Bytes) -> String {
    let hash = data.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("\"{hash:016x}\"")
}
