"""The market that is shipped: auctions and par curve of the US Treasury, made by `make`."""
