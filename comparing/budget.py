"""Device-time of a comparison and of its tuning, given as hours or as money with the price of an hour."""

from __future__ import annotations

import re

from whichlora.config.options import AUTO
from whichlora.errors import OptionError, parse_number

NONE = "none"
_MONEY = re.compile(r"(?P<amount>[0-9.]+) ?(?P<currency>[A-Z]{3})")
_HOURS = re.compile(r"(?P<amount>[0-9.]+) ?h")
_SECONDS = 3600.0
_MOST = 1e7


def device_seconds(budget: str, price: str, *, option: str = "budget") -> float | None:
    """Return a budget in device-seconds; None if there is none.

    Args:
        budget: hours, as "20" or "20h", an amount with its currency, as "50EUR", or "none".
        price: of a device-hour, as "2.5EUR" or "2.5"; "auto" if it is not known.
        option: its name, for messages.

    Raises:
        OptionError: one of them is something else, or they do not fit together.
    """
    currency, an_hour = _price(price)
    if budget == NONE:
        return None
    money = _MONEY.fullmatch(budget)
    if money is None:
        hours = _HOURS.fullmatch(budget)
        what = "hours, money (50EUR)"
        return _SECONDS * _positive(option, hours["amount"] if hours else budget, budget, what, or_else=NONE)
    if an_hour is None:
        raise OptionError("device_price", price, f"must be what a device-hour costs, in {money['currency']}")
    if currency not in (None, money["currency"]):
        raise OptionError("device_price", price, f"must be in {money['currency']}, as {option} is")
    return _SECONDS * _positive(option, money["amount"], budget, "an amount", or_else=NONE) / an_hour


def price_of_runs(price: str) -> str:
    """Return the price of a device-hour as the option `device_price` of `run` takes it, without a currency."""
    with_currency = _MONEY.fullmatch(price)
    return with_currency["amount"] if with_currency else price


def _price(price: str) -> tuple[str | None, float | None]:
    """Return currency and amount of the price of a device-hour, None each if it has none."""
    if price == AUTO:
        return None, None
    with_currency = _MONEY.fullmatch(price)
    amount = _positive("device_price", price_of_runs(price), price, "a price", or_else=AUTO)
    return (with_currency["currency"] if with_currency else None), amount


def _positive(option: str, text: str, given: str, what: str, *, or_else: str) -> float:
    try:
        return parse_number(option, text, above=0, high=_MOST)
    except OptionError as error:
        raise OptionError(option, given, f"must be {what} above 0 and at most {_MOST:,.0f}, or {or_else}") from error
