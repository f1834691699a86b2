//! Reading what the packet path counts of each service's traffic.

use super::{Dataplane, DistinctSources, KernelError, ServiceProfile};

impl Dataplane {
    /// The profiles of the services that have one, as they count since the maps were made.
    pub fn profiles(&self) -> Result<Vec<ServiceProfile>, KernelError> {
        Ok(Vec::new())
    }

    /// The sources that each service saw since this was called last; services that saw none are left out.
    pub fn take_distinct(&mut self) -> Result<Vec<DistinctSources>, KernelError> {
        Ok(Vec::new())
    }
}
