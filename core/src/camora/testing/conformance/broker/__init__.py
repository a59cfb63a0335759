"""The exam of a broker, by subject."""

from __future__ import annotations

from camora.testing.conformance.broker.burying import BuryingSuite
from camora.testing.conformance.broker.declaring import DeclaringSuite
from camora.testing.conformance.broker.dedup import DedupSuite
from camora.testing.conformance.broker.inspecting import InspectingSuite
from camora.testing.conformance.broker.leases import LeaseSuite
from camora.testing.conformance.broker.living import HonestySuite, LivingSuite
from camora.testing.conformance.broker.publishing import PublishingSuite
from camora.testing.conformance.broker.receiving import ReceivingSuite
from camora.testing.conformance.broker.rescheduling import ReschedulingSuite
from camora.testing.conformance.broker.rig import Rig
from camora.testing.conformance.broker.settling import SettlingSuite
from camora.testing.conformance.broker.timing import TimingSuite

__all__ = ["BrokerConformance", "Rig"]


class BrokerConformance(
    PublishingSuite,
    ReceivingSuite,
    LeaseSuite,
    SettlingSuite,
    TimingSuite,
    DedupSuite,
    InspectingSuite,
    ReschedulingSuite,
    DeclaringSuite,
    BuryingSuite,
    LivingSuite,
    HonestySuite,
):
    """All of it. Override `broker_factory`; see `BrokerSuite` for what else can be set."""
