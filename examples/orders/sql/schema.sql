create table orders (customer text not null, pieces integer not null, cents integer not null);
\copy orders from 'orders.csv' csv
