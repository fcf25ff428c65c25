"""The model as a side channel: a malicious trainer hides data in it, and whoever holds or queries it reads them."""
