//! The fixed pages of a layer file: header, footer, and the index file beside an image layer.
//! FORMAT.md describes them; a test pins their bytes.
//!
//! A delta layer is: header page, records, then, once sealed, index and footer page.

use crate::catalog::StatePoint;
use crate::id::{DatabaseId, Epoch, LayerId, Lsn, Timestamp};
use crate::record::{u32_at, u64_at};

/// Length of header and footer pages.
pub const PAGE_LENGTH: usize = 4096;
/// Where a delta layer's first record begins.
pub const RECORDS_AT: u64 = PAGE_LENGTH as u64;

const VERSION: u32 = 1;
const HEADER_MAGIC: &[u8; 8] = b"OpenDuck";
const FOOTER_MAGIC: &[u8; 8] = b"OdSealed";
const IMAGE_MAGIC: &[u8; 8] = b"OdImage\0";
const SUM_AT: usize = PAGE_LENGTH - 4;

/// Why a page was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// Not a layer file at all.
    #[error("this is not a layer file")]
    Foreign,
    /// Of a format that this program does not know.
    #[error("it is of format version {0}, which this program does not know")]
    Version(u32),
    /// Damaged.
    #[error("a page does not match its checksum")]
    Checksum,
    /// Another layer's page.
    #[error("it belongs to another layer")]
    OtherLayer,
}

/// First page of a delta layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerHeader {
    /// The layer's name.
    pub id: LayerId,
    /// The database it was written for.
    pub database: DatabaseId,
    /// What it stands on when it was made. Compaction may have moved it since: the catalog rules.
    pub parent: Option<StatePoint>,
    /// The LSN that its first commit gets.
    pub first_lsn: Lsn,
    /// When it was made.
    pub created: Timestamp,
    /// Payload bytes ever written to the database before it.
    pub written_bytes: u64,
}

/// Last page of a sealed delta layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerFooter {
    /// The layer's name.
    pub id: LayerId,
    /// Behind the last record.
    pub end: u64,
    /// Where the index begins: `end`, rounded up to a page.
    pub index_at: u64,
    /// Length of the index without padding.
    pub index_length: u64,
    /// Number of records in it.
    pub records: u64,
    /// blake3 of everything before this page.
    pub hash: [u8; 32],
}

/// First page of the index file beside an image layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageHeader {
    /// The image layer's name.
    pub id: LayerId,
    /// The database it was written for.
    pub database: DatabaseId,
    /// Length of the image.
    pub size: u64,
    /// blake3 of the image.
    pub hash: [u8; 32],
    /// blake3 of the checksums that follow this page.
    pub sums_hash: [u8; 32],
}

struct PageWriter(Vec<u8>);

impl PageWriter {
    fn new(magic: &[u8; 8], id: LayerId) -> PageWriter {
        let mut page = PageWriter(magic.to_vec());
        page.0.extend(VERSION.to_le_bytes());
        page.0.extend([0; 4]);
        page.numbers(&[id.epoch.0, id.random]);
        page
    }

    fn numbers(&mut self, numbers: &[u64]) {
        self.0.extend(numbers.iter().flat_map(|n| n.to_le_bytes()));
    }

    fn finish(mut self) -> Vec<u8> {
        self.0.resize(SUM_AT, 0);
        let sum = crc32c::crc32c(&self.0);
        self.0.extend(sum.to_le_bytes());
        self.0
    }
}

struct PageReader<'a> {
    page: &'a [u8],
    at: usize,
}

impl<'a> PageReader<'a> {
    fn new(page: &'a [u8], magic: &[u8; 8]) -> Result<(PageReader<'a>, LayerId), PageError> {
        if page.len() != PAGE_LENGTH || page[..8] != *magic {
            return Err(PageError::Foreign);
        }
        if crc32c::crc32c(&page[..SUM_AT]) != u32_at(page, SUM_AT) {
            return Err(PageError::Checksum);
        }
        if u32_at(page, 8) != VERSION {
            return Err(PageError::Version(u32_at(page, 8)));
        }
        let mut reader = PageReader { page, at: 16 };
        let id = LayerId {
            epoch: Epoch(reader.number()),
            random: reader.number(),
        };
        Ok((reader, id))
    }

    fn number(&mut self) -> u64 {
        self.at += 8;
        u64_at(self.page, self.at - 8)
    }

    fn hash(&mut self) -> [u8; 32] {
        self.at += 32;
        self.page[self.at - 32..]
            .first_chunk()
            .copied()
            .unwrap_or_default()
    }
}

impl LayerHeader {
    /// The page.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut page = PageWriter::new(HEADER_MAGIC, self.id);
        let parent = self
            .parent
            .map_or([0; 4], |p| [1, p.layer.epoch.0, p.layer.random, p.lsn.0]);
        page.numbers(&[self.database.0]);
        page.numbers(&parent);
        page.numbers(&[
            self.first_lsn.0,
            self.created.0.cast_unsigned(),
            self.written_bytes,
        ]);
        page.finish()
    }

    /// Reads the page.
    pub fn decode(page: &[u8]) -> Result<LayerHeader, PageError> {
        let (mut reader, id) = PageReader::new(page, HEADER_MAGIC)?;
        let database = DatabaseId(reader.number());
        let [has_parent, epoch, random, lsn] = std::array::from_fn(|_| reader.number());
        let parent = StatePoint {
            layer: LayerId {
                epoch: Epoch(epoch),
                random,
            },
            lsn: Lsn(lsn),
        };
        Ok(LayerHeader {
            id,
            database,
            parent: (has_parent == 1).then_some(parent),
            first_lsn: Lsn(reader.number()),
            created: Timestamp(reader.number().cast_signed()),
            written_bytes: reader.number(),
        })
    }
}

impl LayerFooter {
    /// The page.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut page = PageWriter::new(FOOTER_MAGIC, self.id);
        page.numbers(&[self.end, self.index_at, self.index_length, self.records]);
        page.0.extend(self.hash);
        page.finish()
    }

    /// Reads the page.
    pub fn decode(page: &[u8]) -> Result<LayerFooter, PageError> {
        let (mut reader, id) = PageReader::new(page, FOOTER_MAGIC)?;
        let [end, index_at, index_length, records] = std::array::from_fn(|_| reader.number());
        Ok(LayerFooter {
            id,
            end,
            index_at,
            index_length,
            records,
            hash: reader.hash(),
        })
    }
}

impl ImageHeader {
    /// The page.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut page = PageWriter::new(IMAGE_MAGIC, self.id);
        page.numbers(&[self.database.0, self.size]);
        page.0.extend(self.hash);
        page.0.extend(self.sums_hash);
        page.finish()
    }

    /// Reads the page.
    pub fn decode(page: &[u8]) -> Result<ImageHeader, PageError> {
        let (mut reader, id) = PageReader::new(page, IMAGE_MAGIC)?;
        let [database, size] = std::array::from_fn(|_| reader.number());
        Ok(ImageHeader {
            id,
            database: DatabaseId(database),
            size,
            hash: reader.hash(),
            sums_hash: reader.hash(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: LayerId = LayerId {
        epoch: Epoch(2),
        random: 0x1122_3344_5566_7788,
    };

    fn header() -> LayerHeader {
        LayerHeader {
            id: ID,
            database: DatabaseId(9),
            parent: Some(StatePoint {
                layer: LayerId {
                    epoch: Epoch(1),
                    random: 5,
                },
                lsn: Lsn(6),
            }),
            first_lsn: Lsn(7),
            created: Timestamp(8),
            written_bytes: 10,
        }
    }

    #[test]
    fn pages_come_back() {
        let footer = LayerFooter {
            id: ID,
            end: 1,
            index_at: 4096,
            index_length: 3,
            records: 4,
            hash: [5; 32],
        };
        let image = ImageHeader {
            id: ID,
            database: DatabaseId(1),
            size: 2,
            hash: [3; 32],
            sums_hash: [4; 32],
        };
        assert_eq!(LayerHeader::decode(&header().encode()), Ok(header()));
        assert_eq!(LayerFooter::decode(&footer.encode()), Ok(footer));
        assert_eq!(ImageHeader::decode(&image.encode()), Ok(image));
        assert_eq!(
            LayerHeader::decode(&footer.encode()),
            Err(PageError::Foreign)
        );
    }

    #[test]
    fn every_flipped_bit_of_a_page_is_found() {
        let page = header().encode();
        for at in 0..page.len() {
            let mut bad = page.clone();
            bad[at] ^= 0x10;
            assert!(LayerHeader::decode(&bad).is_err(), "byte {at}");
        }
    }

    #[test]
    fn the_header_is_as_the_format_says() {
        let page = header().encode();
        assert_eq!(page[..12], *b"OpenDuck\x01\0\0\0");
        let numbers: Vec<u64> = (16..104).step_by(8).map(|at| u64_at(&page, at)).collect();
        assert_eq!(
            numbers,
            [2, 0x1122_3344_5566_7788, 9, 1, 1, 5, 6, 7, 8, 10, 0]
        );
    }

    #[test]
    fn a_newer_version_is_named() {
        let mut page = header().encode();
        page[8] = 2;
        let sum = crc32c::crc32c(&page[..SUM_AT]);
        page[SUM_AT..].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(LayerHeader::decode(&page), Err(PageError::Version(2)));
    }
}
