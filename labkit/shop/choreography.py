"""The same case as choreography: each service reacts to facts, and nobody holds the course.

Fulfillment and inventory do all of it without this module, except for what is left undone when a
line is rejected: the other lines of the order still hold stock. The policy "rejection → ask for the
release" closes that. It reacts to fulfillment's own `OrderStatusChanged`, so the order *is*
rejected when it runs.

Guarantee: each rejected order asks for its release once, in the transaction that notes the fact.
Not guaranteed: that anybody can say where an order stands, or what comes next;
`labkit.shop.checkout` is the same case with somebody who can. Run one of the two for an order.

Pattern: Richardson, *Microservices Patterns*, ch. 4 ("Choreography-based saga"); Brandolini,
*Introducing EventStorming* ("policy").
"""

from __future__ import annotations

from sqlalchemy.orm import Session

from labkit.messages import Message
from labkit.service import Service
from labkit.shop import fulfillment
from labkit.shop.contracts import FULFILLMENT, REGISTRY, OrderStatusChanged
from labkit.shop.order_book import REJECTED

service = Service("release-policy", REGISTRY, beside=fulfillment.service)


@service.on(OrderStatusChanged, source=FULFILLMENT)
def whenever_rejected_ask_for_the_release(
    session: Session, message: Message[OrderStatusChanged]
) -> None:
    """Give back what the other lines of a rejected order hold."""
    if message.event.status == REJECTED:
        fulfillment.ask_for_release(session, message.event.order_id, cause=message)
