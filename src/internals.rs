//! Parts for the tests, benchmarks, fuzz targets and simulation of this package. They may change in any version.

pub use crate::balancer::backends::Backend;

pub mod estimate {
    //! The speed of a backend.
    pub use crate::balancer::ranking::estimate::Estimate;
}

pub mod geography {
    //! The places of addresses.
    pub use crate::balancer::geography::network::{Network, NetworkRanges};
    pub use crate::balancer::geography::place::{Band, Continent, Coordinates, CountryCode};
    pub use crate::balancer::geography::{GeoDatabase, GeoPlace, Geography, NetworkTable};
}

pub mod head {
    //! The scanner of request heads.
    pub use crate::http::transport::head::{HeadLimits, HeadScan, Scan};
}

pub mod health {
    //! The health of a backend.
    pub use crate::balancer::health::{
        FailureKind, Health, HealthCheckConfig, OwnView, ProbeFailure, ProbeOutcome, SharedEvidence, State,
        Traffic, Transition,
    };
}

pub mod list {
    //! The list of backends.
    pub use crate::balancer::backends::list::{MAX_PROBLEMS, MAX_WEIGHT, parse};
}

pub mod listing {
    //! The listings of mirrors.
    pub use crate::balancer::presence::scan::listing::{
        LONGEST_NAME, ListedEntry, ListedSize, ListingError, index, line,
    };
}

pub mod load_report {
    //! The load report of a server.
    pub use crate::load_report::{HEADER, LoadReport, MOST_COUNTED, MOST_IN_FLIGHT, parse};
}

pub mod location {
    //! The targets of redirects.
    pub use crate::balancer::redirect::location::Target;
}

pub mod policy {
    //! The choice of a backend.
    pub use crate::balancer::policy::{
        Avoid, BackendLoad, Candidate, Holders, LoadSlab, MOST_ALTERNATES, MirrorSet, MonotonicClock,
        PickRequest, Picks, Policy, PolicyName, ReportedLoad, ServerFilter, Throughput, Timestamp, build,
        digest, identity,
    };
}

pub mod presence {
    //! The files of mirrors.
    pub use crate::balancer::presence::index::{
        FoundPath, IndexFull, MirrorSets, OLD, PathState, PresenceIndex, SetInterner,
    };
}

pub mod range {
    //! The `Range` header of requests.
    pub use crate::file_server::range::{MOST_PARTS, RequestedRanges, parse};
}

pub mod selection {
    //! The backends that may be chosen.
    pub use crate::balancer::ranking::selection::{Eligibility, Mode, Outlier, select};
}

pub mod shared {
    //! Observations that several balancers share.
    pub use crate::balancer::fleet::observers::{
        Delivery, EngineCondition, FleetReport, Observers, OwnSight, PeerNews, Standing,
    };
    pub use crate::balancer::fleet::outbox::{Counts, Outbox};
    pub use crate::balancer::fleet::record::{BackendNews, FleetRecord, Observation, Publisher, RecordError};
}

pub mod sizes {
    //! The sizes of files.
    pub use crate::balancer::sizes::{ExpectedSize, FoundSize, SizeTable};
}

pub mod table {
    //! The routing table.
    pub use crate::balancer::ranking::table::{BackendEntry, RoutingTable};
}

#[cfg(fuzzing)]
pub mod driver {
    //! Parts of the program in memory, for the fuzzer.
    pub use crate::balancer::driver::{ApiAnswer, ApiDriver, read_orders};
    pub use crate::http::transport::driver::{Script, drive};
}
