"""The budget of a comparison in device-hours, given as hours or as money with the price of an hour."""

from __future__ import annotations

import re

from whichlora.errors import OptionError, parse_number

NONE = "none"
_MONEY = re.compile(r"(?P<amount>[0-9.]+) ?(?P<currency>[A-Z]{3})")
_HOURS = re.compile(r"(?P<amount>[0-9.]+) ?h")
_SECONDS = 3600.0
_MOST = 1e7


def device_seconds(budget: str, price: str) -> float | None:
    """Return a budget in device-seconds; None if there is none.

    Args:
        budget: hours, as "20" or "20h", an amount with its currency, as "50EUR", or "none".
        price: of a device-hour, as "2.5EUR" or "2.5"; "none" unless the budget is an amount of money.

    Raises:
        OptionError: one of them is something else, or they do not fit together.
    """
    if budget == NONE:
        if price != NONE:
            raise OptionError("device_price", price, "must be none without a budget in money, such as budget=50EUR")
        return None
    money = _MONEY.fullmatch(budget)
    if money is None:
        hours = _HOURS.fullmatch(budget)
        if price != NONE:
            raise OptionError("budget", budget, "must be an amount with its currency, such as 50EUR, with device_price")
        return _SECONDS * _positive("budget", hours["amount"] if hours else budget, budget, "hours, money (50EUR)")
    if price == NONE:
        raise OptionError("device_price", price, f"must be what a device-hour costs, in {money['currency']}")
    with_currency = _MONEY.fullmatch(price)
    if with_currency and with_currency["currency"] != money["currency"]:
        raise OptionError("device_price", price, f"must be in {money['currency']}, as the budget is")
    an_hour = _positive("device_price", with_currency["amount"] if with_currency else price, price, "a price")
    return _SECONDS * _positive("budget", money["amount"], budget, "an amount") / an_hour


def _positive(option: str, text: str, given: str, what: str) -> float:
    try:
        return parse_number(option, text, above=0, high=_MOST)
    except OptionError as error:
        raise OptionError(option, given, f"must be {what} above 0 and at most {_MOST:,.0f}, or none") from error
