"""The network, and the only folder that imports aiohttp."""
