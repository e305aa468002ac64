"""What a trial may propose, and how a proposal becomes a structure inside the budget."""
