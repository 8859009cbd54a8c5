"""What credentials and limits cost: requests that are admitted, and those that are refused."""
