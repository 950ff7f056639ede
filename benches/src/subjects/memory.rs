//! What the memory of this machine can do with the bytes of a case: one copy, one reading. There is no plugin.

use std::hint::black_box;
use std::path::Path;

use anyhow::{Result, bail};
use goplug_benches::{Case, Job, Measured, Subject, Work, drive_blocking, payload, sum};

#[derive(Debug, Clone, Copy)]
pub(crate) enum Memory {
    Copy,
    Touch,
}

impl Subject for Memory {
    fn name(&self) -> String {
        match self {
            Self::Copy => "bare-memcpy".into(),
            Self::Touch => "bare-touch".into(),
        }
    }

    fn takes(&self, case: &Case) -> bool {
        case.work != Work::Echo && case.in_flight == 1
    }

    fn host(&self, job: &Job) -> Result<Measured> {
        let source = payload(job.case.size);
        // Written before it is measured: the first touch of a page is another story than a copy.
        let mut target = vec![1_u8; source.len()];
        match self {
            Self::Copy => drive_blocking(
                job,
                None,
                &mut [|| {
                    black_box(&mut target[..]).copy_from_slice(black_box(&source));
                    Ok(())
                }],
            ),
            Self::Touch => drive_blocking(
                job,
                None,
                &mut [|| {
                    black_box(sum(black_box(&source)));
                    Ok(())
                }],
            ),
        }
    }

    fn plugin(&self, _dir: &Path, _work: Work, _size: usize) -> Result<()> {
        bail!("memory needs no plugin")
    }
}
