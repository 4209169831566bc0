"""The network; only this folder imports aiohttp."""
