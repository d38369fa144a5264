//! Driver `ephemeral` with huge pages: the kernel's pool grows by what the volume may use, then a hugetlbfs is mounted.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::{fs, io};

use agent_api::agent::Storage;

use super::done::{Done, Step};
use super::ephemeral::{give_to, take_group};
use super::plan::{self, Refusal, refuse};
use super::point::Mounting;
use super::{At as _, Fault};

const POOLS: &str = "/sys/kernel/mm/hugepages";

/// A hugetlbfs and the pages behind it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct HugePages {
    pub(super) mounting: Mounting,
    pool: Pool,
    group: Option<u32>,
}

/// Pages of one size, to be added to the kernel's pool of that size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pool {
    /// A file with the number of pages, below [`POOLS`] but in tests.
    file: PathBuf,
    pages: u64,
}

impl HugePages {
    /// One option holds `pagesize=<bytes>,size=<bytes>`.
    pub(super) fn plan(storage: &Storage) -> Result<Self, Refusal> {
        let words: Vec<String> =
            storage.options.iter().flat_map(|option| option.split(',')).map(str::to_string).collect();
        let (group, words) = take_group(&words)?;
        let number = |key: &str| {
            let value = words.iter().find_map(|word| word.strip_prefix(key));
            match value.map(str::parse::<u64>) {
                Some(Ok(number)) => Ok(number),
                _ => refuse("options", format!("{key} a number of bytes is needed, got {words:?}")),
            }
        };
        let (page, size) = (number("pagesize=")?, number("size=")?);
        if page == 0 || !page.is_multiple_of(1024) || !size.is_multiple_of(page) {
            return refuse("options", format!("size={size} is no number of pages of {page} bytes"));
        }
        let file = Path::new(POOLS).join(format!("hugepages-{}kB/nr_hugepages", page / 1024));
        let (flags, data) = plan::mount_options(&words)?;
        let source = if storage.source.is_empty() { "nodev" } else { &storage.source };
        let mounting = Mounting { source: source.to_string(), fstype: "hugetlbfs".to_string(), flags, data };
        Ok(Self { mounting, pool: Pool { file, pages: size / page }, group })
    }

    pub(super) fn make(&self, target: &Path, done: &mut Done) -> Result<(), Fault> {
        self.pool.add().at(|| format!("get {} huge pages from {:?}", self.pool.pages, self.pool.file))?;
        done.note(Step::HugePages(self.pool.clone()));
        self.mounting.mount(target, done)?;
        give_to(target, self.group)
    }
}

/// The pool's file holds an absolute number, which must not change between reading and writing it.
static CHANGING: Mutex<()> = Mutex::new(());

impl Pool {
    pub(super) fn path(&self) -> PathBuf {
        self.file.clone()
    }

    /// The kernel gives as many pages as it finds, without a word if those are fewer; then it gets them back.
    fn add(&self) -> io::Result<()> {
        let _turn = CHANGING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let before = self.count()?;
        let wanted = before.checked_add(self.pages).ok_or(io::ErrorKind::InvalidInput)?;
        fs::write(&self.file, wanted.to_string())?;
        let found = self.count()?;
        if found < wanted {
            fs::write(&self.file, before.to_string())?;
            return Err(io::Error::other(format!(
                "the guest has room for {} only",
                found - before.min(found)
            )));
        }
        Ok(())
    }

    pub(super) fn give_back(&self) -> io::Result<()> {
        let _turn = CHANGING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        fs::write(&self.file, self.count()?.saturating_sub(self.pages).to_string())
    }

    fn count(&self) -> io::Result<u64> {
        fs::read_to_string(&self.file)?.trim().parse().map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn storage(options: &[&str]) -> Storage {
        Storage {
            driver: "ephemeral".into(),
            fstype: "hugetlbfs".into(),
            options: options.iter().map(ToString::to_string).collect(),
            ..Default::default()
        }
    }

    #[test]
    fn the_pool_and_the_number_of_pages_come_from_one_option() {
        let pages = HugePages::plan(&storage(&["pagesize=2097152,size=8388608", "fsgid=7"])).unwrap();
        assert_eq!(pages.pool.pages, 4);
        assert_eq!(pages.pool.file, Path::new("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"));
        assert_eq!((pages.mounting.data.as_str(), pages.group), ("pagesize=2097152,size=8388608", Some(7)));
        assert_eq!(pages.mounting.source, "nodev");
    }

    #[test]
    fn sizes_that_are_none_are_refused() {
        for options in [
            "",
            "pagesize=2M,size=2M",
            "size=2097152",
            "pagesize=2097152",
            "pagesize=0,size=0",
            "pagesize=2097152,size=3000000",
            "pagesize=100,size=100",
            "pagesize=-1,size=-1",
        ] {
            let refusal = HugePages::plan(&storage(&[options])).unwrap_err();
            assert_eq!(refusal.field, "options", "{options}");
        }
    }

    #[test]
    fn volumes_add_to_the_pool_and_take_no_others_pages_along() {
        let file = std::env::temp_dir().join(format!("husk-pool-{}", std::process::id()));
        fs::write(&file, "3\n").unwrap();
        let (one, two) = (Pool { file: file.clone(), pages: 4 }, Pool { file: file.clone(), pages: 2 });
        one.add().unwrap();
        two.add().unwrap();
        assert_eq!(one.count().unwrap(), 9);
        one.give_back().unwrap();
        assert_eq!(one.count().unwrap(), 5);
        assert!(Pool { file: file.clone(), pages: u64::MAX }.add().is_err());
        fs::remove_file(file).unwrap();
    }

    #[test]
    fn a_pool_that_does_not_grow_is_an_error() {
        // A file that swallows what is written and always reads the same.
        let pool = Pool { file: "/proc/sys/kernel/pid_max".into(), pages: 0 };
        assert!(pool.count().is_ok());
        assert!(Pool { file: "/no/such/pool".into(), pages: 1 }.add().is_err());
    }
}
