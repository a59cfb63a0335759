"""One module for each entrant; its `ENTRANT` is the class. The name of the module is the name of the entrant."""
