//! x
use crate::run::Result;
pub(crate) fn main(_: &[String]) -> Result<()> {
    Ok(())
}
