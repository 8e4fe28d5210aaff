select customer, sum(pieces * cents) / 100 as euros from orders group by customer order by customer;
